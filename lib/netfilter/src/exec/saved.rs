//! What a variant of iptables holds, whoever's it is.

use super::{Runner, Variant};
use crate::backend::ToolError;

/// All rules of both families, as `iptables-save` prints them.
///
/// # Errors
/// [`ToolError`]: neither family can be read.
pub async fn saved(runner: &Runner, variant: Variant) -> Result<String, ToolError> {
    // Without a table's name the legacy tool looks only at tables that exist, and makes none.
    let tool = |version: &str| format!("ip{version}tables-{}-save", variant.suffix());
    let four = runner.run(&tool(""), &[], "").await;
    let six = runner.run(&tool("6"), &[], "").await;
    match (four, six) {
        (Ok(four), Ok(six)) => Ok(four + &six),
        (Ok(rules), Err(_)) | (Err(_), Ok(rules)) => Ok(rules),
        (Err(error), Err(_)) => Err(error),
    }
}
