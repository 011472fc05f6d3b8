//! `velatura serve`: the native API, as programs use it.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::server::{Server, base64, picture, png, small, with};
use common::{Bench, models};
use serde_json::{Value, json};
use velatura::image::{Image, Mask, png_text};

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
    assert_eq!(names[..2], ["queued", "started"]);
    assert_eq!(names.last(), Some(&"done"));
    let numbers: Vec<usize> = events.iter().map(|event| event.0).collect();
    assert_eq!(numbers, (0..events.len()).collect::<Vec<_>>());
    // The two pictures may be painted at once, but of each every step is told in its order.
    for number in 0..2 {
        let own: Vec<&Value> = events
            .iter()
            .filter(|(_, name, data)| name == "step" && data["picture"] == number)
            .map(|(_, _, data)| data)
            .collect();
        let steps: Vec<&Value> = own.iter().map(|step| &step["step"]).collect();
        assert_eq!(steps, [1, 2, 3]);
        assert!(
            own.iter()
                .all(|step| step["steps"] == 3 && step["pictures"] == 2)
        );
        let finished =
            |event: &&(usize, String, Value)| event.1 == "picture" && event.2["number"] == number;
        assert_eq!(events.iter().filter(finished).count(), 1);
    }
    let shares: Vec<f64> = events
        .iter()
        .filter(|event| event.1 == "step")
        .map(|(_, _, step)| {
            assert!(step["seconds_left"].as_f64().unwrap() >= 0.0);
            step["progress"].as_f64().unwrap()
        })
        .collect();
    assert!(shares.is_sorted() && shares.len() == 6, "{shares:?}");
    assert_eq!(shares.last(), Some(&1.0));
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
fn jobs_that_wait_together_paint_what_each_paints_alone() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    // Each of these has its own sampler, steps, guidance and prompt; of one size, they share batches.
    let wishes = [
        ("a red house", "euler-a", "40", "7.5"),
        ("a cat", "ddim", "25", "1"),
        ("the sea", "dpm++2m", "33", "3"),
        ("a long wait", "ddim", "150", "5"),
        ("a dog", "heun", "12", "4"),
    ];
    let submit = |(prompt, sampler, steps, guidance): &(&str, &str, &str, &str)| {
        let body = json!({"prompt": prompt, "sampler": sampler, "steps": steps.parse::<usize>().unwrap(),
            "guidance_scale": guidance.parse::<f32>().unwrap(), "seed": 5, "width": 64, "height": 64});
        server.submit(&body)
    };
    let ids: Vec<String> = wishes.iter().map(submit).collect();
    // Cancelling one is not the others' matter.
    let cancel = format!("/v1/jobs/{}/cancel", ids[3]);
    assert_eq!(server.post(&cancel, &json!({})).status, 200);
    for (id, (prompt, sampler, steps, guidance)) in ids.iter().zip(&wishes) {
        let job = server.finished(id);
        if *prompt == "a long wait" {
            assert_eq!(job["state"], "cancelled", "{job}");
            continue;
        }
        assert_eq!(job["state"], "done", "{job}");
        let ours = server.bytes(job["pictures"][0]["url"].as_str().unwrap());
        let told = [
            "-s",
            steps,
            "--seed",
            "5",
            "--sampler",
            sampler,
            "-g",
            guidance,
            "-o",
            "a.png",
            prompt,
        ];
        bench.generate(&told);
        assert_eq!(ours, fs::read(bench.path("a.png")).unwrap(), "{prompt}");
    }
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
