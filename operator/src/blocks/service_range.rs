//! The range of Service addresses: pools must not overlap it.

use std::{net::IpAddr, sync::Mutex, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Service, networking::v1::ServiceCIDR};
use kube::{Api, Client, api::ListParams};
use tokio::time::Instant;

/// How long an answer is good for: the range practically never changes.
const FRESH: Duration = Duration::from_mins(5);

/// The range as last read.
#[derive(Default)]
pub(crate) struct ServiceRange {
    known: Mutex<Option<(Instant, Vec<IpNet>)>>,
}

impl ServiceRange {
    /// The ServiceCIDRs (Kubernetes 1.33 and newer), and the address of the Service `kubernetes`,
    /// which lies in the range whatever the version. What cannot be read is left out: this check
    /// is a help, not a gate.
    pub(crate) async fn get(&self, client: &Client) -> Vec<IpNet> {
        if let Ok(known) = self.known.lock()
            && let Some((when, ranges)) = known.as_ref()
            && when.elapsed() < FRESH
        {
            return ranges.clone();
        }
        let mut texts = Vec::new();
        match Api::<ServiceCIDR>::all(client.clone())
            .list(&ListParams::default())
            .await
        {
            Ok(list) => texts.extend(
                list.items
                    .into_iter()
                    .filter_map(|c| c.spec?.cidrs)
                    .flatten(),
            ),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => tracing::warn!(%error, "cannot list ServiceCIDRs"),
        }
        match Api::<Service>::namespaced(client.clone(), "default")
            .get("kubernetes")
            .await
        {
            Ok(service) => {
                texts.extend(service.spec.and_then(|s| s.cluster_ips).unwrap_or_default())
            }
            Err(error) => tracing::warn!(%error, "cannot read Service default/kubernetes"),
        }
        let ranges = parse(&texts);
        if let Ok(mut known) = self.known.lock() {
            *known = Some((Instant::now(), ranges.clone()));
        }
        ranges
    }
}

fn parse(texts: &[String]) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = texts
        .iter()
        .filter_map(|t| {
            t.parse()
                .or_else(|_| t.parse::<IpAddr>().map(IpNet::from))
                .ok()
        })
        .collect();
    // The widest first: messages name the range rather than one address of it.
    ranges.sort_by_key(IpNet::prefix_len);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_before_addresses_and_headless_is_no_address() {
        let texts = ["10.96.0.1", "None", "10.96.0.0/16"].map(String::from);
        assert_eq!(
            parse(&texts),
            [
                "10.96.0.0/16".parse().unwrap(),
                "10.96.0.1/32".parse::<IpNet>().unwrap()
            ]
        );
    }
}
