//! Where a broker is reached from outside, as its Service says.
//!
//! Owns the form in which that is told to the broker, and the words when there is nothing to tell yet. Pure.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use serde::Serialize;

/// What a broker is told of one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Address {
    /// None as long as nobody knows one.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    /// Where the host comes from, or why there is none.
    pub(crate) why: String,
}

/// The Service of one broker.
pub(crate) fn service_name(cluster: &str, broker_id: i32) -> String {
    format!("{cluster}-broker-{broker_id}-external")
}

/// The key of what a broker is told.
pub(crate) fn key(broker_id: i32) -> String {
    format!("broker-{broker_id}.EXTERNAL")
}

/// The address of the load balancer in front of a Service; its name, where it has both.
pub(crate) fn address(name: &str, service: Option<&Service>) -> Address {
    let none = |why: String| Address {
        host: None,
        port: 0,
        why,
    };
    let Some(service) = service else {
        return none(format!("the Service {name} does not exist"));
    };
    let spec = service.spec.as_ref();
    let port = spec
        .and_then(|spec| spec.ports.as_ref()?.first())
        .and_then(|port| u16::try_from(port.port).ok());
    let Some(port) = port else {
        return none(format!("the Service {name} has no port"));
    };
    let kind = spec
        .and_then(|spec| spec.type_.as_deref())
        .unwrap_or("ClusterIP");
    if kind != "LoadBalancer" {
        return none(format!(
            "the Service {name} is of type {kind}: it has no load balancer"
        ));
    }
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref()?.first());
    match ingress.and_then(host) {
        None => none(format!(
            "the Service {name} has no address yet: nobody has written status.loadBalancer"
        )),
        Some(host) => Address {
            host: Some(host),
            port,
            why: format!("status.loadBalancer of the Service {name} says so"),
        },
    }
}

fn host(ingress: &LoadBalancerIngress) -> Option<String> {
    let given = |text: &Option<String>| text.clone().filter(|it| !it.is_empty());
    given(&ingress.hostname).or_else(|| given(&ingress.ip))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(service: Option<Value>, host: Option<&str>, why: &str) {
        let service: Option<Service> = service.map(|it| serde_json::from_value(it).unwrap());
        let found = address("demo", service.as_ref());
        assert_eq!(found.host.as_deref(), host);
        assert_eq!(found.port, if host.is_some() { 9094 } else { 0 });
        assert!(found.why.contains(why), "{}", found.why);
    }

    #[test]
    fn what_a_service_says() {
        let service = |kind: &str, ingress: Value| {
            Some(json!({
                "spec": { "type": kind, "ports": [{ "port": 9094 }] },
                "status": { "loadBalancer": { "ingress": ingress } },
            }))
        };
        check(None, None, "does not exist");
        check(
            Some(json!({ "spec": { "type": "LoadBalancer" } })),
            None,
            "has no port",
        );
        check(service("NodePort", json!([])), None, "is of type NodePort");
        check(
            service("LoadBalancer", json!([])),
            None,
            "has no address yet",
        );
        check(
            service("LoadBalancer", json!([{ "ip": "" }])),
            None,
            "has no address yet",
        );
        let ip = json!([{ "ip": "198.51.100.7" }, { "ip": "198.51.100.8" }]);
        check(service("LoadBalancer", ip), Some("198.51.100.7"), "says so");
        let both = json!([{ "ip": "198.51.100.7", "hostname": "lb.example.org" }]);
        check(
            service("LoadBalancer", both),
            Some("lb.example.org"),
            "says so",
        );
    }
}
