//! The gRPC server metrics (`spec/metrics.md` §2).

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::grpc::method::Method;
use crate::grpc::status::Code;
use crate::metrics::counter;

const METHOD_LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
const CODE_LABELS: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];

/// Calls and messages by method.
#[derive(Debug)]
pub struct GrpcMetrics {
    methods: Vec<OfMethod>,
    handled: IntCounterVec,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    handling: Option<HistogramVec>,
}

/// One method's counters.
#[derive(Debug)]
struct OfMethod {
    started: IntCounter,
    handled_ok: IntCounter,
    received: IntCounter,
    sent: IntCounter,
}

impl GrpcMetrics {
    /// Makes and registers the counters; those of core services stand at zero from the start, as in etcd.
    pub fn new(registry: &Registry, extensive: bool) -> Result<Self, prometheus::Error> {
        let by_method = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &METHOD_LABELS)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let started =
            by_method("grpc_server_started_total", "Total number of RPCs started on the server.")?;
        let received = by_method(
            "grpc_server_msg_received_total",
            "Total number of RPC stream messages received on the server.",
        )?;
        let sent = by_method(
            "grpc_server_msg_sent_total",
            "Total number of gRPC stream messages sent by the server.",
        )?;
        let handled = IntCounterVec::new(
            Opts::new(
                "grpc_server_handled_total",
                "Total number of RPCs completed on the server, regardless of success or failure.",
            ),
            &CODE_LABELS,
        )?;
        registry.register(Box::new(handled.clone()))?;
        let mut methods = Vec::with_capacity(Method::ALL.len());
        for method in Method::ALL {
            let labels = labels(*method);
            methods.push(OfMethod {
                started: started.get_metric_with_label_values(&labels)?,
                handled_ok: handled.get_metric_with_label_values(&with_code(*method, Code::Ok))?,
                received: received.get_metric_with_label_values(&labels)?,
                sent: sent.get_metric_with_label_values(&labels)?,
            });
            for code in Code::ALL {
                handled.get_metric_with_label_values(&with_code(*method, code))?;
            }
        }
        Ok(Self {
            methods,
            handled,
            received_bytes: counter(
                registry,
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
            )?,
            sent_bytes: counter(
                registry,
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.",
            )?,
            handling: extensive.then(|| handling(registry)).transpose()?,
        })
    }

    fn of(&self, method: Method) -> &OfMethod {
        &self.methods[method as usize]
    }

    /// Counts a call that begins.
    pub fn started(&self, method: Method) {
        self.of(method).started.inc();
    }

    /// Counts a message of `len` bytes from a client.
    pub fn received(&self, method: Method, len: usize) {
        self.of(method).received.inc();
        self.received_bytes.inc_by(len as u64);
    }

    /// Counts a message of `len` bytes to a client.
    pub fn sent(&self, method: Method, len: usize) {
        self.of(method).sent.inc();
        self.sent_bytes.inc_by(len as u64);
    }

    /// Counts a call that has ended.
    pub fn handled(&self, method: Method, code: Code, took: Duration) {
        if code == Code::Ok {
            self.of(method).handled_ok.inc();
        } else {
            self.handled.with_label_values(&with_code(method, code)).inc();
        }
        if let Some(handling) = &self.handling {
            handling.with_label_values(&labels(method)).observe(took.as_secs_f64());
        }
    }
}

fn labels(method: Method) -> [&'static str; 3] {
    [method.kind().label(), method.service(), method.name()]
}

fn with_code(method: Method, code: Code) -> [&'static str; 4] {
    [method.kind().label(), method.service(), method.name(), code.name()]
}

fn handling(registry: &Registry) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(
        "grpc_server_handling_seconds",
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
    );
    let histograms = HistogramVec::new(options, &METHOD_LABELS)?;
    registry.register(Box::new(histograms.clone()))?;
    Ok(histograms)
}
