//! The gRPC server metrics (`spec/metrics.md` §2).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::grpc::method::Method;
use crate::grpc::status::Code;
use crate::metrics::counter;

const METHOD_LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
const CODE_LABELS: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];

/// Calls and messages by method.
#[derive(Debug)]
pub struct GrpcMetrics {
    vectors: Vectors,
    /// Resolved once, so that counting is one addition. Those of core services stand at zero from the start, as in etcd;
    /// the others appear with their first call.
    methods: Vec<OnceLock<OfMethod>>,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
}

/// The series of all methods.
#[derive(Debug)]
struct Vectors {
    started: IntCounterVec,
    handled: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    /// Only with `--metrics=extensive`.
    handling: Option<HistogramVec>,
}

/// One method's counters.
#[derive(Debug)]
struct OfMethod {
    started: IntCounter,
    handled_ok: OnceLock<IntCounter>,
    received: IntCounter,
    sent: IntCounter,
    handling: Option<Histogram>,
}

impl Vectors {
    fn new(registry: &Registry, extensive: bool) -> Result<Self, prometheus::Error> {
        let by_method = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &METHOD_LABELS)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let handled = IntCounterVec::new(
            Opts::new(
                "grpc_server_handled_total",
                "Total number of RPCs completed on the server, regardless of success or failure.",
            ),
            &CODE_LABELS,
        )?;
        registry.register(Box::new(handled.clone()))?;
        Ok(Self {
            started: by_method(
                "grpc_server_started_total",
                "Total number of RPCs started on the server.",
            )?,
            handled,
            received: by_method(
                "grpc_server_msg_received_total",
                "Total number of RPC stream messages received on the server.",
            )?,
            sent: by_method(
                "grpc_server_msg_sent_total",
                "Total number of gRPC stream messages sent by the server.",
            )?,
            handling: extensive.then(|| handling(registry)).transpose()?,
        })
    }

    fn of(&self, method: Method) -> OfMethod {
        let labels = labels(method);
        OfMethod {
            started: self.started.with_label_values(&labels),
            handled_ok: OnceLock::new(),
            received: self.received.with_label_values(&labels),
            sent: self.sent.with_label_values(&labels),
            handling: self.handling.as_ref().map(|all| all.with_label_values(&labels)),
        }
    }
}

impl GrpcMetrics {
    /// Makes and registers the counters.
    pub fn new(registry: &Registry, extensive: bool) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            vectors: Vectors::new(registry, extensive)?,
            methods: Method::ALL.iter().map(|_| OnceLock::new()).collect(),
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
        };
        for method in Method::ALL.iter().copied().filter(|method| is_core(*method)) {
            metrics.of(method);
            for code in Code::ALL {
                metrics.vectors.handled.with_label_values(&with_code(method, code));
            }
        }
        Ok(metrics)
    }

    fn of(&self, method: Method) -> &OfMethod {
        self.methods[method as usize].get_or_init(|| self.vectors.of(method))
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
        let of_method = self.of(method);
        let of_code = || self.vectors.handled.with_label_values(&with_code(method, code));
        if code == Code::Ok {
            of_method.handled_ok.get_or_init(of_code).inc();
        } else {
            of_code().inc();
        }
        if let Some(handling) = &of_method.handling {
            handling.observe(took.as_secs_f64());
        }
    }
}

/// etcd registers Lock and Election after it has filled in the series of the others.
fn is_core(method: Method) -> bool {
    !matches!(method.service(), "v3lockpb.Lock" | "v3electionpb.Election")
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
