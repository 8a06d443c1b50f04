//! For every CEL rule of the API: an object that it accepts and one that it refuses, with the
//! message a user sees. A test of this crate checks that no rule is missing;
//! `e2e/tests/crds.rs` tries them all on a real API server.

use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// Examples for one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Kind of the objects.
    pub kind: &'static str,
    /// Where the rule stands in the schema (`spec.cidrs`; empty: the object).
    pub path: &'static str,
    /// Message of the rule.
    pub message: &'static str,
    /// The object before, for rules about changes.
    pub before: Option<Value>,
    /// Accepted (as a change of `before`, if there is one).
    pub accepted: Value,
    /// Refused, with `message`.
    pub refused: Value,
}

/// A rule as the schema has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Kind it belongs to.
    pub kind: String,
    /// Where it stands.
    pub path: String,
    /// Its message.
    pub message: String,
    /// It compares with `oldSelf`: it says something about changes.
    pub transition: bool,
}

/// Every CEL rule of every kind, read from the schemas.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for crd in crate::all() {
        for version in &crd.spec.versions {
            let schema = serde_json::to_value(&version.schema).unwrap_or_default();
            let root = &schema["openAPIV3Schema"];
            collect(&crd.spec.names.kind, "", root, &mut rules);
        }
    }
    rules.sort();
    rules
}

fn collect(kind: &str, path: &str, schema: &Value, rules: &mut Vec<Rule>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        rules.push(Rule {
            kind: kind.to_owned(),
            path: path.to_owned(),
            message: rule["message"].as_str().unwrap_or_default().to_owned(),
            transition: rule["rule"]
                .as_str()
                .unwrap_or_default()
                .contains("oldSelf"),
        });
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect(kind, &below, property, rules);
    }
    if schema["items"].is_object() {
        collect(kind, &format!("{path}[]"), &schema["items"], rules);
    }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", crate::GROUP, crate::VERSION),
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn network(spec: &Value) -> Value {
    object("WeftNetwork", crate::DEFAULT_NAME, spec)
}

/// A pool of a documentation range that gives out nothing.
fn pool(mut spec: Value) -> Value {
    spec["phase"] = "Disabled".into();
    object("IPPool", "cel-example", &spec)
}

/// A block that no node can confirm.
fn block(pool: &str, cidr: &str, epoch: i64) -> Value {
    let node = json!({"name": "cel-example", "uid": "00000000"});
    let spec = json!({"pool": pool, "cidr": cidr, "node": node, "epoch": epoch});
    object("IPBlock", "cel-example", &spec)
}

/// The table.
#[must_use]
pub fn examples() -> Vec<Example> {
    [networks(), pools(), blocks()].concat()
}

fn networks() -> Vec<Example> {
    let example = |path, message, accepted: Value, refused: Value| Example {
        kind: "WeftNetwork",
        path,
        message,
        before: None,
        accepted: network(&accepted),
        refused: network(&refused),
    };
    vec![
        Example {
            refused: object("WeftNetwork", "second", &json!({})),
            ..example(
                "",
                "there is one WeftNetwork in a cluster and its name is 'default'",
                json!({}),
                json!({}),
            )
        },
        example(
            "spec.fabric",
            "port and controlPort must differ: both are UDP ports of the node",
            json!({"fabric": {"port": 6784, "controlPort": 6783}}),
            json!({"fabric": {"port": 6784, "controlPort": 6784}}),
        ),
        example(
            "spec.fabric.underlay",
            "set interface or cidr, not both",
            json!({"fabric": {"underlay": {"interface": "eth1"}}}),
            json!({"fabric": {"underlay": {"interface": "eth1", "cidr": "192.0.2.0/24"}}}),
        ),
        example(
            "spec.fabric.underlay.cidr",
            "must be a CIDR such as 192.168.0.0/16",
            json!({"fabric": {"underlay": {"cidr": "192.0.2.0/24"}}}),
            json!({"fabric": {"underlay": {"cidr": "192.0.2.1"}}}),
        ),
        example(
            "spec.nat.noMasqueradeCIDRs",
            "every entry must be a CIDR such as 10.0.0.0/8",
            json!({"nat": {"noMasqueradeCIDRs": ["192.0.2.0/24", "2001:db8::/32"]}}),
            json!({"nat": {"noMasqueradeCIDRs": ["192.0.2.0/24", "intranet"]}}),
        ),
        example(
            "spec.cni.binDir",
            "must be an absolute path",
            json!({"cni": {"binDir": "/opt/cni/bin"}}),
            json!({"cni": {"binDir": "opt/cni/bin"}}),
        ),
        example(
            "spec.cni.confDir",
            "must be an absolute path",
            json!({"cni": {"confDir": "/etc/cni/net.d"}}),
            json!({"cni": {"confDir": "net.d"}}),
        ),
    ]
}

fn pools() -> Vec<Example> {
    let example = |path, message, accepted: Value, refused: Value| Example {
        kind: "IPPool",
        path,
        message,
        before: None,
        accepted: pool(accepted),
        refused: pool(refused),
    };
    let v4 = || json!({"cidrs": ["192.0.2.0/24"]});
    vec![
        example(
            "spec",
            "blockSize.v4 must lie between the prefix length of every IPv4 CIDR and 20 bits more",
            json!({"cidrs": ["192.0.2.0/24"], "blockSize": {"v4": 24, "v6": 122}}),
            json!({"cidrs": ["192.0.2.0/24"], "blockSize": {"v4": 23, "v6": 122}}),
        ),
        example(
            "spec",
            "blockSize.v6 must lie between the prefix length of every IPv6 CIDR and 74 bits more",
            json!({"cidrs": ["2001:db8::/48"], "blockSize": {"v4": 26, "v6": 122}}),
            json!({"cidrs": ["2001:db8::/47"], "blockSize": {"v4": 26, "v6": 122}}),
        ),
        example(
            "spec.cidrs",
            "every entry must be a CIDR such as 10.32.0.0/12",
            v4(),
            json!({"cidrs": ["192.0.2.0"]}),
        ),
        example(
            "spec.cidrs",
            "a CIDR must not have host bits set (10.32.0.0/12, not 10.32.0.1/12)",
            v4(),
            json!({"cidrs": ["192.0.2.1/24"]}),
        ),
        Example {
            before: Some(pool(json!({"cidrs": ["192.0.2.0/24"]}))),
            ..example(
                "spec.cidrs",
                "a CIDR cannot be removed while the pool exists: set phase to Draining and make \
                 another pool",
                json!({"cidrs": ["198.51.100.0/24", "192.0.2.0/24"]}),
                json!({"cidrs": ["198.51.100.0/24"]}),
            )
        },
        Example {
            before: Some(pool(json!({
                "cidrs": ["192.0.2.0/24"], "blockSize": {"v4": 26, "v6": 122}
            }))),
            ..example(
                "spec.blockSize",
                "blockSize is immutable: make another pool",
                json!({
                    "cidrs": ["192.0.2.0/24"], "blockSize": {"v4": 26, "v6": 122}, "priority": 5
                }),
                json!({"cidrs": ["192.0.2.0/24"], "blockSize": {"v4": 27, "v6": 122}}),
            )
        },
        example(
            "spec.exclude",
            "every entry must be an address or a CIDR",
            json!({"cidrs": ["192.0.2.0/24"], "exclude": ["192.0.2.1", "192.0.2.8/29"]}),
            json!({"cidrs": ["192.0.2.0/24"], "exclude": ["192.0.2.1-192.0.2.9"]}),
        ),
    ]
}

fn blocks() -> Vec<Example> {
    let cidr = "192.0.2.0/26";
    let change = |path, message, refused: Value| Example {
        kind: "IPBlock",
        path,
        message,
        before: Some(block("cel-example", cidr, 5)),
        accepted: block("cel-example", cidr, 6),
        refused,
    };
    vec![
        change("spec.pool", "pool is immutable", block("another", cidr, 5)),
        Example {
            before: None,
            ..change(
                "spec.cidr",
                "must be a canonical CIDR",
                block("cel-example", "192.0.2.1/26", 5),
            )
        },
        change(
            "spec.cidr",
            "cidr is immutable",
            block("cel-example", "192.0.2.64/26", 5),
        ),
        change(
            "spec.epoch",
            "epoch never goes back",
            block("cel-example", cidr, 4),
        ),
    ]
}
