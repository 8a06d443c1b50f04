//! STATUS.

use weft_socket::code;

use crate::{conf::NetConf, conf::Version, error::Failure, host::Router};

/// Succeeds if an ADD would be served now.
pub(crate) fn status(conf: &NetConf) -> Result<(), Failure> {
    if conf.version < Version::V1_1_0 {
        return Err(Failure::new(
            code::INCOMPATIBLE_VERSION,
            format!("STATUS is not part of CNI {}", conf.version.text()),
            "configurations from cniVersion 1.1.0 on have it",
        ));
    }
    if conf.uninstalled.exists() {
        return Err(unavailable(
            "weft was uninstalled from this node",
            String::new(),
        ));
    }
    let status = Router(conf).status().map_err(|e| {
        let failure = Failure::from(e);
        unavailable(&failure.msg, failure.details)
    })?;
    if status.ready {
        return Ok(());
    }
    Err(unavailable(
        "the router is not ready to attach pods",
        status.reasons.join("; "),
    ))
}

fn unavailable(msg: &str, details: String) -> Failure {
    Failure::new(code::PLUGIN_NOT_AVAILABLE, msg, details)
}
