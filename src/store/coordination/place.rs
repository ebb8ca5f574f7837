//! Where a coordination store is, as the configuration says it.

/// A folder or an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinationPlace {
    /// By path or `file://` URL.
    Folder(String),
    Etcd(EtcdCluster),
}

/// `etcd://host:port,host:port/prefix`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdCluster {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// All keys begin with it and a `/`.
    pub prefix: String,
}

/// No coordination store can be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("coordination.store {place:?}: {}; {}", self.problem(), self.what_to_do())]
    Etcd { place: String, what: &'static str },
    #[error("coordination.store {place:?}: {}; {}", self.problem(), self.what_to_do())]
    NoEtcd { place: String },
}

impl PlaceError {
    /// What is wrong, without the place.
    pub fn problem(&self) -> String {
        match self {
            Self::Etcd { what, .. } => format!("it has no {what}"),
            Self::NoEtcd { .. } => "this build has no etcd".to_owned(),
        }
    }

    pub fn what_to_do(&self) -> &'static str {
        match self {
            Self::Etcd { .. } => "write it as \"etcd://host:2379,host:2379/prefix\"",
            Self::NoEtcd { .. } => {
                "build it with cargo's feature etcd, or set coordination.store to a folder"
            }
        }
    }
}

/// What etcd's keys may begin with, so that they can be typed.
const PREFIX_MAX: usize = 256;
/// An etcd cluster has 3 to 7 members.
const ENDPOINTS_MAX: usize = 16;

impl CoordinationPlace {
    /// # Errors
    /// It begins as etcd's and isn't one.
    pub fn read(place: &str) -> Result<Self, PlaceError> {
        let Some(rest) = place.strip_prefix("etcd://") else {
            return Ok(Self::Folder(place.to_owned()));
        };
        let lacks = |what| PlaceError::Etcd { place: place.to_owned(), what };
        let (hosts, prefix) = rest.split_once('/').ok_or(lacks("prefix"))?;
        let endpoints: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if endpoints.len() > ENDPOINTS_MAX || !endpoints.iter().all(|one| is_endpoint(one)) {
            return Err(lacks("host and port for each member"));
        }
        let prefix = prefix.trim_matches('/');
        let typed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.chars().all(typed) {
            return Err(lacks("prefix of letters, digits, -, _, . or /"));
        }
        Ok(Self::Etcd(EtcdCluster { endpoints, prefix: prefix.to_owned() }))
    }

    /// Whether this build can open it.
    ///
    /// # Errors
    /// It is etcd's, and the feature is off.
    pub fn known(&self, place: &str) -> Result<(), PlaceError> {
        match self {
            Self::Etcd(_) if cfg!(not(feature = "etcd")) => {
                Err(PlaceError::NoEtcd { place: place.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// A name, an IPv4 address or a bracketed IPv6 address, and a port.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !host.is_empty() && host.chars().all(allowed)
        }
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_etcds_is_a_folder() {
        for folder in ["gradmesh-data/coordination", "/mnt/shared", "file:///mnt/shared"] {
            let read = CoordinationPlace::read(folder);
            assert_eq!(read, Ok(CoordinationPlace::Folder(folder.to_owned())));
        }
    }

    #[test]
    fn endpoints_and_prefix_of_etcd_are_told_apart() {
        let place = "etcd://a.example:2379,10.0.0.2:2379,[::1]:23790/gradmesh/one/";
        let cluster = EtcdCluster {
            endpoints: ["a.example:2379", "10.0.0.2:2379", "[::1]:23790"].map(Into::into).into(),
            prefix: "gradmesh/one".into(),
        };
        assert_eq!(CoordinationPlace::read(place), Ok(CoordinationPlace::Etcd(cluster)));
    }

    #[test]
    fn what_etcd_lacks_is_named_with_the_form() {
        for (place, what) in [
            ("etcd://a:2379", "prefix"),
            ("etcd://a:2379/", "prefix of"),
            ("etcd://a:2379/two words", "prefix of"),
            ("etcd:///p", "host and port"),
            ("etcd://a/p", "host and port"),
            ("etcd://a:0/p", "host and port"),
            ("etcd://a:2379,/p", "host and port"),
            ("etcd://user@a:2379/p", "host and port"),
            ("etcd://[a]:2379/p", "host and port"),
        ] {
            let refused = CoordinationPlace::read(place).unwrap_err().to_string();
            assert!(refused.contains(&format!("has no {what}")), "{refused}");
            assert!(refused.ends_with("write it as \"etcd://host:2379,host:2379/prefix\""));
        }
    }

    #[test]
    fn a_build_without_etcd_names_the_feature() {
        let place = "etcd://a:2379/p";
        let known = CoordinationPlace::read(place).unwrap().known(place);
        if cfg!(feature = "etcd") {
            assert_eq!(known, Ok(()));
        } else {
            assert!(known.unwrap_err().to_string().contains("build it with cargo's feature etcd"));
        }
    }
}
