//! The live page in a real Chromium, driven and photographed by web/test/page.mjs.

use crate::program::{Server, repository, text};
use std::path::Path;
use std::process::Command;

#[test]
fn the_page_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&repository("examples/stocks.toml"), &dir.path().join("data"));
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&shots).unwrap();
    let out = Command::new("node")
        .arg(repository("web/test/page.mjs"))
        .args([server.url.as_str(), text(&shots)])
        .output()
        .expect("node is needed for the page test");
    assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    server.stop();
}
