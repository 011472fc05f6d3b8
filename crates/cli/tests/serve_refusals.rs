//! `velatura serve`: what is refused, and in which words.

mod common;

use std::fs;

use common::server::{Server, base64, picture, png, small, with};
use common::{Bench, models};
use serde_json::json;
use velatura::image::Mask;

/// The header of a PNG of 50 000 × 50 000 pixels, and a little of what would unpack to 7.5 GB.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 50_000, 50_000);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer
        .write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0xed, 0xc1])
        .unwrap();
    drop(writer);
    bytes
}

#[test]
fn what_cannot_be_is_refused_and_names_the_field() {
    let bench = Bench::new();
    let config = bench.path("serve.toml");
    fs::write(&config, "[limits]\nbody_bytes = 65536\n").unwrap();
    let server = Server::start(&bench.path("data"), &["--config", config.to_str().unwrap()]);
    let init = png(&picture(64, 64));
    let mask = base64(&Mask::new(64, 72, vec![true; 64 * 72]).encode_png().unwrap());
    let cases = [
        (json!({"steps": 0}), "steps", "1 to"),
        (json!({"steps": 1000}), "steps", "1 to 150"),
        (json!({"steps": "many"}), "steps", "many"),
        (json!({"seed": -1}), "seed", "-1"),
        (json!({"seed": 1u64 << 60}), "seed", "9007199254740991"),
        (json!({"seed": null, "seeds": []}), "seeds", "at least one"),
        (json!({"count": 0}), "count", "1 to 16"),
        (json!({"count": 1000}), "count", "1 to 16"),
        (
            json!({"sampler": "eular"}),
            "sampler",
            "the nearest is euler",
        ),
        (
            json!({"schedule": "karas"}),
            "schedule",
            "the nearest is karras",
        ),
        (json!({"width": 65}), "width", "the nearest is 64"),
        (json!({"height": 100_000}), "height", "2048"),
        (
            json!({"guidance_scale": -1}),
            "guidance_scale",
            "not negative",
        ),
        (json!({"eta": 3}), "eta", "0 to 1"),
        (json!({"prompt": "x".repeat(20_000)}), "prompt", "10000"),
        (json!({"strength": 0.5}), "strength", "init"),
        (json!({"mask": init}), "mask", "init"),
        (json!({"init_image": init, "mask": mask}), "mask", "64×64"),
        (
            json!({"init_image": init, "strength": 0}),
            "strength",
            "above 0",
        ),
        (json!({"init_image": "*"}), "init_image", "base64"),
        (
            json!({"init_image": base64(b"no picture")}),
            "init_image",
            "PNG",
        ),
        (
            json!({"init_image": base64(&bomb())}),
            "init_image",
            "50000×50000",
        ),
        (
            json!({"init_image": png(&picture(65, 64)), "width": null, "height": null}),
            "width",
            "65",
        ),
    ];
    for (more, field, part) in cases {
        let answer = server.post("/v1/jobs", &with(&small("x"), more.clone()));
        let short = more.to_string().chars().take(80).collect::<String>();
        assert_eq!(answer.status, 422, "{short}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["field"], field, "{short}: {}", answer.body);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{part:?} is not in {detail}");
    }
    let unknown = server.post("/v1/jobs", &json!({"prompt": "x", "stepz": 3}));
    assert_eq!(unknown.status, 422);
    assert!(unknown.body["detail"].as_str().unwrap().contains("stepz"));
    assert_eq!(server.post("/v1/jobs", &json!({"steps": 3})).status, 422);

    let raw = |kind: &str, body: &str| {
        let request = server.agent.post(format!("{}/v1/jobs", server.url));
        request
            .header("Content-Type", kind)
            .send(body)
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(raw("application/json", "{\"prompt\": \"x\""), 400);
    assert_eq!(raw("text/plain", "{\"prompt\": \"x\"}"), 415);
    assert_eq!(raw("application/json", &" ".repeat(70_000)), 413);
    for path in [
        "/v1/jobs/x",
        "/v1/jobs/00000000-0000-0000-0000-000000000000",
        "/nothing",
        "/v1/jobs/../x",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get("/v1/jobs?limit=0").status, 422);
    assert_eq!(server.get("/v1/jobs?state=lost").status, 422);
    assert_eq!(server.delete("/v1/model").status, 405);
    assert_eq!(server.get("/v1/jobs").body["jobs"], json!([]));
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let bench = Bench::new();
    let config = bench.path("serve.toml");
    fs::write(&config, "[limits]\nqueue = 2\n").unwrap();
    let server = Server::start(&bench.path("data"), &["--config", config.to_str().unwrap()]);
    let long = json!({"prompt": "x", "steps": 150, "width": 256, "height": 256});
    let mut refused = None;
    for _ in 0..5 {
        let answer = server.post("/v1/jobs", &long);
        if answer.status != 201 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("five do not fit");
    assert_eq!(refused.status, 429, "{}", refused.body);
    let seconds: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=600).contains(&seconds));
}

#[test]
fn keys_are_asked_for_and_other_origins_turned_away() {
    let bench = Bench::new();
    let (keys, key) = (bench.path("keys.txt"), "0123456789abcdef");
    fs::write(&keys, format!("# mine\n{key}\n")).unwrap();
    let server = Server::start(
        &bench.path("data"),
        &["--api-key-file", keys.to_str().unwrap()],
    );
    for path in [
        "/v1/jobs",
        "/v1/model",
        "/metrics",
        "/sdapi/v1/progress",
        "/v1/models",
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    for path in ["/", "/healthz", "/readyz", "/app.js", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let bearer = format!("Bearer {key}");
    let basic = format!("Basic {}", base64(format!("me:{key}").as_bytes()));
    for value in [&bearer, &basic] {
        let answer = server.post_with("/v1/jobs", &small("x"), &[("Authorization", value)]);
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let wrong = server.post_with(
        "/v1/jobs",
        &small("x"),
        &[("Authorization", "Bearer 0123456789abcdeF")],
    );
    assert_eq!(wrong.status, 401);
    // A link that is handed out works without the key.
    let body = json!({"prompt": "a cat", "size": "64x64", "response_format": "url"});
    let answer = server.post_with(
        "/v1/images/generations",
        &body,
        &[("Authorization", &bearer)],
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let url = answer.body["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix(&server.url).unwrap();
    assert_eq!(server.bytes(path)[..4], *b"\x89PNG");
    assert_eq!(server.get(path.split('?').next().unwrap()).status, 401);

    let evil = [
        ("Authorization", bearer.as_str()),
        ("Origin", "https://evil.example"),
    ];
    assert_eq!(server.post_with("/v1/jobs", &small("x"), &evil).status, 403);

    let model = models().join("sd15");
    let refused = bench.run(&[
        "serve",
        "--host",
        "0.0.0.0",
        "--data",
        "none",
        "-m",
        model.to_str().unwrap(),
    ]);
    refused.fails(1, &["0.0.0.0", "--api-key-file", "--no-auth"]);
}
