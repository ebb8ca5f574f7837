//! A run's loss curve as SVG.

use gradmesh_actors::ledger::EpochRecord;
use plotters::prelude::*;

/// Draws training and test loss by epoch; empty where there is nothing to draw.
pub fn svg(model: &str, epochs: &[EpochRecord]) -> String {
    let mut text = String::new();
    if let Err(_cause) = draw(&mut text, model, epochs) {
        // Only a chart without extent fails, and then there is nothing to see.
        text.clear();
    }
    text
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, model: &str, epochs: &[EpochRecord]) -> Drawn {
    let train = || epochs.iter().map(|epoch| (epoch.epoch as f64, epoch.train_loss));
    let test = || epochs.iter().filter_map(|e| Some((e.epoch as f64, e.test_loss?)));
    let top = train().chain(test()).map(|(_, loss)| loss).fold(f64::MIN_POSITIVE, f64::max);
    let last = epochs.last().map_or(2, |last| last.epoch.max(2)) as f64;
    let area = SVGBackend::with_string(text, (720, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{model}: loss by epoch"), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(52)
        .build_cartesian_2d(1.0..last, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("loss")
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .draw()?;
    chart
        .draw_series(LineSeries::new(train(), &BLUE))?
        .label("training rows")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE));
    chart
        .draw_series(LineSeries::new(test(), &RED))?
        .label("test rows")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RED));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_names_the_model_and_both_losses() {
        let epoch = |epoch| EpochRecord {
            epoch,
            rows: 10,
            train_loss: 1.0 / epoch as f64,
            test_loss: Some(1.5 / epoch as f64),
            test_accuracy: None,
        };
        let drawn = svg("digits", &[epoch(1), epoch(2), epoch(3)]);
        assert!(drawn.starts_with("<svg"), "{drawn}");
        for text in ["digits: loss by epoch", "training rows", "test rows"] {
            assert!(drawn.contains(text), "{text} is missing");
        }
        assert!(drawn.matches("<polyline").count() >= 2);
    }

    #[test]
    fn a_run_of_one_epoch_has_a_curve_too() {
        let record = EpochRecord {
            epoch: 1,
            rows: 1,
            train_loss: 0.0,
            test_loss: None,
            test_accuracy: None,
        };
        assert!(svg("one", &[record]).starts_with("<svg"));
        assert!(svg("none", &[]).starts_with("<svg"));
    }
}
