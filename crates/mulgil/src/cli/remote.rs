//! A mulgil that is running on a data folder, asked over HTTP.

use anyhow::{Context, Result, anyhow, bail};
use std::io::Write;
use std::path::Path;

/// Where a running mulgil says how it is reached; removed when it stops in order.
const ADDRESS_FILE: &str = "serve.url";

/// The environment variable with the API key, where the server wants one.
const KEY_VARIABLE: &str = "MULGIL_API_KEY";

pub fn announce(dir: &Path, url: &str) -> Result<()> {
    std::fs::write(dir.join(ADDRESS_FILE), url).context("cannot write the server's address into the data folder")
}

pub fn withdraw(dir: &Path) {
    std::fs::remove_file(dir.join(ADDRESS_FILE)).ok();
}

/// The address of the mulgil that holds this folder. A file left by one that was killed does not count: its lock is free.
pub fn running_at(dir: &Path) -> Option<String> {
    let url = std::fs::read_to_string(dir.join(ADDRESS_FILE)).ok()?;
    let lock = mulgil_disk::Disk::lock(&mulgil_disk::RealDisk, &dir.join("lock"));
    lock.is_err().then(|| url.trim().to_owned())
}

fn with_key(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    match std::env::var(KEY_VARIABLE) {
        Ok(key) => request.bearer_auth(key),
        Err(_) => request,
    }
}

/// Runs SQL there and copies the answer; the number of lines.
pub async fn query(url: &str, sql: &str, format: &str, out: Option<&Path>) -> Result<u64> {
    let remote_format = if format == "table" { "csv" } else { format };
    let body = serde_json::json!({ "sql": sql, "format": remote_format });
    let text = post(url, "api/v1/sql", &body).await?;
    let shown = match format {
        "table" => table(&text)?,
        "json" => lines(&text)?,
        _ => text,
    };
    match out {
        Some(path) => std::fs::write(path, &shown).with_context(|| format!("cannot write {}", path.display()))?,
        None => std::io::stdout().lock().write_all(shown.as_bytes())?,
    }
    Ok(shown.lines().count() as u64)
}

/// Asks a captured database there to read tables again.
pub async fn snapshot(url: &str, source: &str, tables: &[String], filter: Option<&str>) -> Result<()> {
    let mut body = serde_json::json!({ "tables": tables });
    if let Some(filter) = filter {
        body["filter"] = filter.into();
    }
    let mut address = reqwest::Url::parse(url).context("the address of the running mulgil cannot be read")?;
    address
        .path_segments_mut()
        .map_err(|()| anyhow!("the address of the running mulgil has no path"))?
        .extend(["api", "v1", "captures", source, "snapshot"]);
    post(url, address.path().trim_start_matches('/'), &body).await.map(drop)
}

/// The text of a good answer; what is wrong, in the server's words, with any other.
async fn post(url: &str, path: &str, body: &serde_json::Value) -> Result<String> {
    let request = with_key(reqwest::Client::new().post(format!("{url}/{path}")));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.with_context(|| format!("cannot reach the mulgil that runs on this folder at {url}"))?;
    let status = answer.status();
    let text = answer.text().await.context("the answer broke off")?;
    if status.is_success() {
        return Ok(text);
    }
    let detail = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|v| v["detail"].as_str().map(str::to_owned));
    let hint = if status.as_u16() == 401 { format!(" (set {KEY_VARIABLE})") } else { String::new() };
    bail!("{}{hint}", detail.unwrap_or_else(|| format!("{url} answered {status}")))
}

/// The server's JSON document as one object per line, each as it came: numbers keep their digits.
fn lines(text: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        data: Vec<&'a serde_json::value::RawValue>,
    }
    let document: Document<'_> = serde_json::from_str(text).context("the answer is not what was asked for")?;
    Ok(document.data.iter().map(|row| format!("{}\n", row.get())).collect())
}

/// CSV as an aligned table.
fn table(text: &str) -> Result<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let rows = reader.records().collect::<Result<Vec<_>, _>>()?;
    let n_columns = rows.iter().map(csv::StringRecord::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().map(|r| r.get(c).unwrap_or_default().chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut shown = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (c, width) in widths.iter().enumerate() {
            shown.push_str(&format!("{:<width$}  ", row.get(c).unwrap_or_default()));
        }
        shown = shown.trim_end().to_owned() + "\n";
        if i == 0 {
            shown.push_str(&widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().join("  "));
            shown.push('\n');
        }
    }
    Ok(shown)
}
