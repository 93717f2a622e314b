//! What a scrape shows, built from figures that are kept elsewhere.

use prometheus::proto;

use super::histogram::Snapshot;

/// All series of one name.
pub(super) type Family = proto::MetricFamily;

/// A label and its value.
pub(super) type Label<'a> = (&'static str, &'a str);

/// A family of counters.
pub(super) fn counters<'a>(
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Vec<Label<'a>>, f64)>,
) -> Family {
    let series = series.into_iter().map(|(labels, value)| {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        let mut metric = labelled(&labels);
        metric.set_counter(counter);
        metric
    });
    family(name, help, proto::MetricType::COUNTER, series)
}

/// A family of gauges.
pub(super) fn gauges<'a>(
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Vec<Label<'a>>, f64)>,
) -> Family {
    let series = series.into_iter().map(|(labels, value)| {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(&labels);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, proto::MetricType::GAUGE, series)
}

/// A family of histograms.
pub(super) fn histograms<'a>(
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Vec<Label<'a>>, Snapshot)>,
) -> Family {
    let series = series.into_iter().map(|(labels, snapshot)| {
        let mut metric = labelled(&labels);
        metric.set_histogram(snapshot.shown());
        metric
    });
    family(name, help, proto::MetricType::HISTOGRAM, series)
}

/// One series without labels.
pub(super) fn only<T>(value: T) -> [(Vec<Label<'static>>, T); 1] {
    [(Vec::new(), value)]
}

fn labelled(labels: &[Label<'_>]) -> proto::Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}

fn family(
    name: &str,
    help: &str,
    kind: proto::MetricType,
    series: impl Iterator<Item = proto::Metric>,
) -> Family {
    let mut family = Family::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series.collect());
    family
}
