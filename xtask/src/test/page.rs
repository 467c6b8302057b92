//! The page: its unit tests, and that the built files committed in web/dist are those its sources give.

use super::{streamed, vitest_line};
use crate::tally::Tally;
use crate::{house, process};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

pub fn checks() -> Tally {
    let mut tally = Tally::default();
    match unit_tests() {
        Ok(ran) => tally.add(ran),
        Err(error) => tally.check("unit tests of the page", Err(error)),
    }
    tally.check("web/dist is what web/src builds", built());
    tally
}

fn unit_tests() -> Result<Tally> {
    let mut command = process::command("npm");
    command.args(["test", "--silent"]).current_dir(house::root().join("web")).env("NO_COLOR", "1").env("CI", "1");
    let (ran, succeeded) = streamed(&mut command, vitest_line)?;
    if ran == Tally::default() || succeeded == (ran.n_failed > 0) {
        bail!("`npm test` in web/ did not end as it should: {} passed, {} failed, success: {succeeded}", ran.n_passed, ran.n_failed);
    }
    Ok(ran)
}

fn built() -> Result<String> {
    let web = house::root().join("web");
    let fresh = house::cache()?.join("web-dist");
    let mut build = process::command("npm");
    build.args(["run", "build", "--silent", "--", "--emptyOutDir", "--outDir"]).arg(&fresh).current_dir(&web);
    process::read(&mut build)?;
    let differing = differences(&files(&web.join("dist"))?, &files(&fresh)?);
    if !differing.is_empty() {
        bail!("{}\nrun `npm run build` in web/ and commit web/dist", differing.join("\n"));
    }
    Ok(String::new())
}

/// Every file below the folder, by its path from there.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                found.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

fn differences(committed: &BTreeMap<String, Vec<u8>>, fresh: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let stale = committed.keys().filter(|name| !fresh.contains_key(*name)).map(|name| format!("web/dist/{name} is no longer built"));
    let changed = fresh.iter().filter_map(|(name, bytes)| match committed.get(name) {
        None => Some(format!("web/dist/{name} is missing")),
        Some(old) if old != bytes => Some(format!("web/dist/{name} differs from what its source builds")),
        Some(_) => None,
    });
    stale.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named() {
        let files = |list: &[(&str, &str)]| list.iter().map(|(n, b)| ((*n).to_owned(), b.as_bytes().to_vec())).collect();
        let found = differences(&files(&[("a", "1"), ("b", "1"), ("c", "1")]), &files(&[("b", "2"), ("c", "1"), ("d", "1")]));
        assert_eq!(found, ["web/dist/a is no longer built", "web/dist/b differs from what its source builds", "web/dist/d is missing"]);
    }
}
