//! What a variant of iptables holds, whoever's it is.

use super::{Runner, Variant};
use crate::backend::ToolError;

/// All rules of both families, as `iptables-save` prints them. A family that this host has not
/// ([`ToolError::is_absent`]) has no rules.
///
/// # Errors
/// [`ToolError`]: the host has neither family, or one of them cannot be read.
pub async fn saved(runner: &Runner, variant: Variant) -> Result<String, ToolError> {
    // Without a table's name the legacy tool looks only at tables that exist, and makes none.
    let tool = |version: &str| format!("ip{version}tables-{}-save", variant.suffix());
    let four = runner.run(&tool(""), &[], "").await;
    let six = runner.run(&tool("6"), &[], "").await;
    match (four, six) {
        (Ok(four), Ok(six)) => Ok(four + &six),
        (Ok(rules), Err(error)) | (Err(error), Ok(rules)) if error.is_absent() => Ok(rules),
        (Err(absent), Err(error)) if absent.is_absent() => Err(error),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}
