//! The clients that people use, against a running server: webuiapi and openai from PyPI, and a browser on the page.

mod common;

use std::fs;
use std::process::Command;

use common::Bench;
use common::server::Server;
use common::tools;

#[test]
fn webuiapi_paints_and_interrupts() {
    if tools::offline() {
        return;
    }
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let address = server.url.strip_prefix("http://").unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let script = tools::script("sdapi.py");
    tools::succeeds(Command::new(tools::python()).arg(script).args([host, port]));
}

#[test]
fn openai_paints_and_edits() {
    if tools::offline() {
        return;
    }
    let bench = Bench::new();
    let (keys, key) = (bench.path("keys.txt"), "sk-0123456789abcdef");
    fs::write(&keys, key).unwrap();
    let server = Server::start(
        &bench.path("data"),
        &["--api-key-file", keys.to_str().unwrap()],
    );
    let script = tools::script("openai_images.py");
    tools::succeeds(
        Command::new(tools::python())
            .arg(script)
            .args([&server.url, key]),
    );
}

#[test]
fn a_person_paints_on_the_page() {
    if tools::offline() {
        return;
    }
    let (driver, browser) = tools::browser();
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let script = driver.join("page.mjs");
    fs::copy(tools::script("page.mjs"), &script).unwrap();
    tools::succeeds(
        Command::new("node")
            .arg(script)
            .arg(&server.url)
            .arg(browser)
            .arg(tools::screenshots()),
    );
}
