//! What a request is called, from its sender to the predictor and in the logs of both.

/// Bytes of a name: twice that of a W3C trace context. A longer one is none.
const NAME_MAX: usize = 128;

/// By the trace of `traceparent` (W3C Trace Context, level 1) or else by `x-request-id`; empty where
/// there is neither.
pub(super) fn request_id(traceparent: Option<&str>, given: Option<&str>) -> String {
    let named = given.filter(|given| {
        given.len() <= NAME_MAX && given.bytes().all(|byte| byte.is_ascii_graphic())
    });
    traceparent.and_then(trace).or(named).unwrap_or_default().to_owned()
}

/// `00-<trace, 32 digits>-<parent, 16 digits>-<flags, 2 digits>`; a version behind the first may
/// have more.
fn trace(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.splitn(4, '-');
    let (version, trace, parent, rest) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let flags = if version == "00" { rest } else { rest.split('-').next()? };
    let whole = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16);
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    (whole && hex(flags, 2) && !zero(trace) && !zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_request_is_called_by_its_trace_or_by_the_name_that_it_has() {
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(request_id(Some(&traceparent), Some("mine")), TRACE);
        let later = format!("cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-will-be");
        assert_eq!(request_id(Some(&later), None), TRACE);
        assert_eq!(request_id(None, Some("mine")), "mine");
        assert_eq!(request_id(None, None), "");
    }

    #[test]
    fn what_is_no_trace_and_no_name_is_not_repeated() {
        for wrong in [
            "",
            "00",
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        ] {
            assert_eq!(request_id(Some(wrong), None), "", "{wrong}");
            assert_eq!(request_id(Some(wrong), Some("mine")), "mine", "{wrong}");
        }
        for wrong in ["two words", "a\nb", &"x".repeat(129)] {
            assert_eq!(request_id(None, Some(wrong)), "");
        }
    }
}
