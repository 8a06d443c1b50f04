//! Every CEL rule of the API, tried on a real API server: what it accepts, what it refuses, and
//! the message a user reads. The definitions are applied first, so the server also judges their
//! structure and the cost of their rules.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use tokio::time::timeout;
use weft_crds::examples::{Example, examples};
use weft_e2e::{Settings, eventually};

const MANAGER: &str = "weft-e2e";

/// How long a deleted object may stay.
const GONE: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn every_rule_accepts_and_refuses_with_its_message() -> anyhow::Result<()> {
    let client = Settings::new().cluster().await?.client;
    let kinds = install(&client).await?;
    let mut failures = Vec::new();
    for example in examples() {
        let resource = kinds.get(example.kind).context(example.kind)?;
        let api = Api::<DynamicObject>::all_with(client.clone(), resource);
        if let Err(error) = try_one(&api, &example).await {
            let Example {
                kind,
                path,
                message,
                ..
            } = &example;
            failures.push(format!("{kind} {path:?} ({message}): {error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

async fn install(client: &Client) -> anyhow::Result<BTreeMap<String, ApiResource>> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let mut kinds = BTreeMap::new();
    for crd in weft_crds::all() {
        let name = crd.name_any();
        api.patch(
            &name,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&crd),
        )
        .await
        .with_context(|| format!("the API server refuses {name}"))?;
        let established = await_condition(api.clone(), &name, is_crd_established());
        timeout(Duration::from_secs(30), established)
            .await
            .with_context(|| format!("{name} is not established"))??;
        let names = crd.spec.names;
        let resource = ApiResource {
            group: crd.spec.group.clone(),
            version: weft_crds::VERSION.into(),
            api_version: format!("{}/{}", crd.spec.group, weft_crds::VERSION),
            kind: names.kind.clone(),
            plural: names.plural,
        };
        kinds.insert(names.kind, resource);
    }
    Ok(kinds)
}

/// Rules about changes need an object that exists; everything else is a dry run.
async fn try_one(api: &Api<DynamicObject>, example: &Example) -> anyhow::Result<()> {
    let Some(before) = &example.before else {
        let accepted = dry_apply(api, &example.accepted).await;
        accepted.context("refused what it should accept")?;
        return refused(dry_apply(api, &example.refused).await, example.message);
    };
    let object: DynamicObject = serde_json::from_value(before.clone())?;
    let name = object.name_any();
    remove(api, &name).await?;
    api.create(&PostParams::default(), &object)
        .await
        .context("create the object before the change")?;
    let result = async {
        let dry = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let change =
            |spec: &serde_json::Value| Patch::Merge(serde_json::json!({"spec": spec["spec"]}));
        api.patch(&name, &dry, &change(&example.accepted))
            .await
            .context("refused what it should accept")?;
        refused(
            api.patch(&name, &dry, &change(&example.refused)).await,
            example.message,
        )
    }
    .await;
    remove(api, &name).await?;
    result
}

async fn dry_apply(
    api: &Api<DynamicObject>,
    object: &serde_json::Value,
) -> Result<DynamicObject, kube::Error> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::apply(MANAGER).force()
    };
    api.patch(name, &params, &Patch::Apply(object)).await
}

fn refused(answer: Result<DynamicObject, kube::Error>, message: &str) -> anyhow::Result<()> {
    match answer {
        Ok(_) => anyhow::bail!("accepted what it should refuse"),
        Err(kube::Error::Api(status)) => {
            ensure!(
                status.code == 422 && status.message.contains(message),
                "refused for another reason: {}",
                status.message
            );
            Ok(())
        }
        Err(error) => Err(error).context("no answer"),
    }
}

/// Deletes an object of ours and waits until it is gone; without an operator that minds the
/// finalizer, the test takes it off.
async fn remove(api: &Api<DynamicObject>, name: &str) -> anyhow::Result<()> {
    let strip = serde_json::json!({"metadata": {"finalizers": null}});
    eventually(GONE, &format!("{name} goes away"), async || {
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            other => drop(other?),
        }
        let _ = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&strip))
            .await;
        anyhow::bail!("it is there")
    })
    .await
}
