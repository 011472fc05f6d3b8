//! `velatura serve`: the native API, as programs use it.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::server::{Server, small, with};
use common::{Bench, models};
use serde_json::{Value, json};
use velatura::image::{Image, Mask, png_text};

/// Standard base64, for the few pictures here.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn png(image: &Image) -> String {
    base64(&image.encode_png(&[]).unwrap())
}

/// A picture of soft colours.
fn picture(width: usize, height: usize) -> Image {
    let pixels = (0..width * height)
        .flat_map(|i| [(i * 3 % 251) as u8, (i / 5 % 256) as u8, 90])
        .collect();
    Image::new(width, height, pixels)
}

#[test]
fn a_job_is_followed_step_by_step_and_paints_what_the_command_paints() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let answer = server.post(
        "/v1/jobs",
        &with(&small("a photo of a cat"), json!({"count": 2})),
    );
    assert_eq!(answer.status, 201, "{}", answer.body);
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/v1/jobs/{id}"));
    assert_eq!(answer.body["order"]["seeds"], json!([7, 8]));

    let events = server.events(id, None);
    let names: Vec<&str> = events.iter().map(|event| event.1.as_str()).collect();
    assert_eq!(
        names,
        [
            "queued", "started", "step", "step", "step", "picture", "step", "step", "step",
            "picture", "done"
        ]
    );
    let numbers: Vec<usize> = events.iter().map(|event| event.0).collect();
    assert_eq!(numbers, (0..events.len()).collect::<Vec<_>>());
    let steps: Vec<(u64, u64)> = events
        .iter()
        .filter(|event| event.1 == "step")
        .map(|(_, _, step)| {
            assert_eq!((&step["steps"], &step["pictures"]), (&json!(3), &json!(2)));
            assert!(step["seconds_left"].as_f64().unwrap() >= 0.0);
            (
                step["picture"].as_u64().unwrap(),
                step["step"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(steps, [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]);
    // From a finished job there is left what came of it.
    let late = server.events(id, Some(1));
    assert_eq!(late.last().unwrap().1, "done");

    let job = server.finished(id);
    assert_eq!(job["state"], "done");
    for number in 0..2 {
        let url = job["pictures"][number]["url"].as_str().unwrap();
        let ours = server.bytes(url);
        let seed = (7 + number).to_string();
        bench.generate(&[
            "-s",
            "3",
            "--seed",
            &seed,
            "--sampler",
            "ddim",
            "-o",
            "a.png",
            "a photo of a cat",
        ]);
        assert_eq!(
            ours,
            fs::read(bench.path("a.png")).unwrap(),
            "picture {number}"
        );
        let text = png_text(&ours).unwrap();
        assert!(text[0].1.contains(&format!("Seed: {seed}")), "{text:?}");
    }
    let list = server.get("/v1/jobs?limit=5").body;
    assert_eq!(list["jobs"][0]["id"], id);
    assert_eq!(server.delete(&format!("/v1/jobs/{id}")).status, 204);
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).status, 404);
}

#[test]
fn a_key_makes_one_job_of_many_requests() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let post =
        |key: &str, body: &Value| server.post_with("/v1/jobs", body, &[("Idempotency-Key", key)]);
    let first = post("mine", &small("a cat"));
    assert_eq!(first.status, 201);
    let again = post("mine", &small("a cat"));
    assert_eq!((again.status, &again.body["id"]), (200, &first.body["id"]));
    let other = post("mine", &small("a dog"));
    assert_eq!(
        (other.status, &other.body["field"]),
        (422, &json!("Idempotency-Key"))
    );
    assert_eq!(post("", &small("a cat")).status, 422);
    assert_eq!(
        server.get("/v1/jobs").body["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn cancelling_stops_within_a_step() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let long = json!({"prompt": "x", "steps": 150, "width": 512, "height": 512, "sampler": "ddim"});
    let running = server.submit(&long);
    let waiting = server.submit(&small("waits"));
    let position = server.get(&format!("/v1/jobs/{waiting}")).body["position"].clone();
    assert_eq!(position, 1);
    let step = loop {
        let job = server.get(&format!("/v1/jobs/{running}")).body;
        assert_ne!(job["state"], "failed", "{job}");
        if let Some(step) = job["progress"]["step"].as_u64() {
            break step;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let cancel = |id: &str| server.post(&format!("/v1/jobs/{id}/cancel"), &json!({}));
    assert_eq!(cancel(&waiting).body["state"], "cancelled");
    assert_eq!(cancel(&running).status, 200);
    let job = server.finished(&running);
    assert_eq!(
        (&job["state"], &job["pictures"]),
        (&json!("cancelled"), &json!([]))
    );
    let steps = server.bytes("/metrics");
    let steps = String::from_utf8(steps).unwrap();
    let taken: u64 = steps
        .lines()
        .find_map(|line| line.strip_prefix("velatura_steps_total "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        taken <= step + 3,
        "{taken} steps were taken, {step} when it was cancelled"
    );
    assert_eq!(server.events(&running, None).last().unwrap().1, "cancelled");
    // What has come to its end stays so.
    assert_eq!(cancel(&running).body["state"], "cancelled");
}

#[test]
fn a_part_of_a_picture_is_repainted_and_the_rest_stays() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let init = picture(64, 64);
    let mask = Mask::new(64, 64, (0..64 * 64).map(|i| i % 64 >= 30).collect());
    let mask_png = base64(&mask.encode_png().unwrap());
    let url = format!("data:image/png;base64,{}", png(&init));
    let body = json!({"prompt": "a house", "steps": 4, "seed": 1, "init_image": url, "mask": mask_png, "mask_blur": 2});
    let job = server.finished(&server.submit(&body));
    assert_eq!(
        (&job["state"], &job["order"]["mode"]),
        (&json!("done"), &json!("inpaint")),
        "{job}"
    );
    assert_eq!(job["order"]["width"], 64);
    let painted =
        Image::from_bytes(&server.bytes(job["pictures"][0]["url"].as_str().unwrap())).unwrap();
    let mut changed = 0;
    for (i, (new, old)) in painted
        .pixels()
        .chunks(3)
        .zip(init.pixels().chunks(3))
        .enumerate()
    {
        if mask.painted()[i] {
            changed += usize::from(new != old);
        } else {
            assert_eq!(new, old, "pixel {i}");
        }
    }
    assert!(changed > 1000, "{changed}");

    let body = json!({"prompt": "a house", "steps": 4, "init_image": png(&picture(50, 50)), "width": 64, "height": 64});
    let job = server.finished(&server.submit(&body));
    assert_eq!(
        (&job["state"], &job["order"]["mode"]),
        (&json!("done"), &json!("img2img")),
        "{job}"
    );
    assert_eq!(job["order"]["strength"], 0.8);
    assert_eq!(job["pictures"][0]["recipe"]["strength"], 0.8);
}

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

#[cfg(unix)]
#[test]
fn what_was_accepted_survives_the_server() {
    let bench = Bench::new();
    let data = bench.path("data");
    let server = Server::start(&data, &[]);
    let jobs: Vec<String> = (0..3)
        .map(|i| {
            let more = json!({"steps": 40, "seed": i, "count": 3, "width": 128, "height": 128});
            server.submit(&with(&small("a house"), more))
        })
        .collect();
    let done =
        |server: &Server| server.get(&format!("/v1/jobs/{}", jobs[0])).body["pictures"].clone();
    let start = Instant::now();
    while done(&server).as_array().unwrap().is_empty() {
        assert!(start.elapsed() < common::server::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let url = done(&server)[0]["url"].as_str().unwrap().to_string();
    let before = server.bytes(&url);
    server.kill();

    // Another start, which is asked to stop in the middle of a step, and a third that finishes.
    let server = Server::start(&data, &[]);
    assert_eq!(server.bytes(&url), before);
    assert_eq!(server.stop(), 0);
    let server = Server::start(&data, &[]);
    for (i, id) in jobs.iter().enumerate() {
        let job = server.finished(id);
        assert_eq!(job["state"], "done", "{job}");
        let seeds: Vec<u64> = job["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|picture| picture["seed"].as_u64().unwrap())
            .collect();
        let first = i as u64;
        assert_eq!(seeds, [first, first + 1, first + 2]);
    }
    assert_eq!(server.bytes(&url), before);

    // The folder belongs to one server.
    let data = data.to_str().unwrap();
    let model = models().join("sd15");
    let second = bench.run(&[
        "serve",
        "--port",
        "0",
        "--data",
        data,
        "-m",
        model.to_str().unwrap(),
    ]);
    second.fails(1, &["database"]);
}

/// Whether a piece of the page's text is a path on the server.
fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    text.starts_with('/') && text.chars().all(plain)
}

#[test]
fn the_page_and_the_document_are_there() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let mut page = server.agent.get(&server.url).call().unwrap();
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_string();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http"),
        "{policy}"
    );
    let html = page.body_mut().read_to_string().unwrap();
    // Everything that the page asks for is in the program.
    for part in html.split('"').filter(|part| is_path(part)) {
        assert_eq!(server.get(part).status, 200, "{part}");
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
    let document = server.get("/openapi.json").body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/events",
        "/healthz",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let model = server.get("/v1/model").body;
    assert_eq!(
        (&model["name"], &model["ready"]),
        (&json!("sd15"), &json!(true))
    );
    assert_eq!(model["samplers"].as_array().unwrap().len(), 7);
}
