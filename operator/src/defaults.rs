//! The values of the chart, as WeftNetwork and IPPools. Applied without force: what a user changed
//! on the object since stays, and an Event says so.

use std::{fmt::Debug, path::Path};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use weft_crds::{DEFAULT_NAME, IPPool, WeftNetwork};

use crate::{
    api::{CONFIG, named},
    events::Events,
    looping::Error,
    uninstall::mark::Mark,
};

/// Contents of `/etc/weft/config.json`. The specs are kept as they are written: only fields that
/// somebody wrote are ours.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Spec of the WeftNetwork `default`.
    pub(crate) network: Value,
    /// IPPools.
    pub(crate) pools: Vec<NamedPool>,
}

/// An IPPool of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedPool {
    pub(crate) name: String,
    pub(crate) spec: Value,
}

/// Reads the file. A missing one is an empty one: then users make the objects.
pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => anyhow::bail!("cannot read {}: {error}", path.display()),
    };
    parse(&text).map_err(|error| {
        anyhow::anyhow!(
            "{} (ConfigMap weft-config, from the chart's values): {error}",
            path.display()
        )
    })
}

pub(crate) fn parse(text: &[u8]) -> Result<Config, serde_json::Error> {
    serde_json::from_slice(text)
}

/// Applies the configuration. Objects that cannot be applied do not hold up the others.
pub(crate) async fn apply(
    client: &Client,
    namespace: &str,
    config: &Config,
    events: &Events,
    mark: &Mark,
) -> Result<(), Error> {
    // Where the values arrive: what is wrong with them is said there.
    let map = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("ConfigMap".into()),
        name: Some("weft-config".into()),
        namespace: Some(namespace.to_owned()),
        ..ObjectReference::default()
    };
    let mut errors = Vec::new();
    if config.network.is_object() {
        let network = one::<WeftNetwork>(client, DEFAULT_NAME, &config.network, events, &map);
        errors.extend(mark.unless_left(network).await.err());
    }
    for pool in &config.pools {
        let pool = one::<IPPool>(client, &pool.name, &pool.spec, events, &map);
        errors.extend(mark.unless_left(pool).await.err());
    }
    Error::join(errors)
}

async fn one<K>(
    client: &Client,
    name: &str,
    spec: &Value,
    events: &Events,
    configuration: &ObjectReference,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "spec": spec,
    });
    let params = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply(CONFIG)
    };
    let source = match api.patch(name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => return Ok(()),
        Err(source) => source,
    };
    let what = format!("cannot apply {} from the configuration", named::<K>(name));
    let kube::Error::Api(status) = &source else {
        return Err(Error::Api { what, source });
    };
    if status.is_conflict()
        && let Ok(Some(present)) = api.get_opt(name).await
    {
        let note = format!(
            "the configuration (chart values) wants something else than a user set: {}; the \
             object stays as it is. Change the values, or remove the user's field",
            status.message
        );
        tracing::warn!(object = present.name_any(), note);
        let object = present.object_ref(&());
        events
            .warn(&object, "ConfigConflict", "Configure", &note)
            .await;
        return Ok(());
    }
    if matches!(status.code, 400 | 422) {
        // Trying again would not help: other values come with another process.
        let note = format!("{what}: {}. Change the chart's values", status.message);
        tracing::error!(note);
        events
            .warn(configuration, "ConfigRefused", "Configure", &note)
            .await;
        return Ok(());
    }
    Err(Error::Api { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_nobody_wrote_are_not_ours() {
        let config = parse(
            br#"{"network": {"fabric": {"port": 6785}},
                 "pools": [{"name": "default", "spec": {"cidrs": ["10.32.0.0/12"]}}]}"#,
        )
        .unwrap();
        let pool = NamedPool {
            name: "default".into(),
            spec: json!({"cidrs": ["10.32.0.0/12"]}),
        };
        assert_eq!(config.network, json!({"fabric": {"port": 6785}}));
        assert_eq!(config.pools, [pool]);
    }

    #[test]
    fn a_missing_file_is_an_empty_configuration_and_a_wrong_one_an_error() {
        assert_eq!(
            read(Path::new("/nowhere/config.json")).unwrap(),
            Config::default()
        );
        assert!(parse(b"{\"netwrok\": {}}").is_err());
        assert!(parse(b"{").is_err());
    }
}
