//! `velatura serve` under load, under kills, and under nonsense.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Bench;
use common::server::{PATIENCE, Server, small, with};
use serde_json::{Value, json};

/// A small generator of numbers, so that every run does the same: xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// How many rounds: `VELATURA_LOAD=n` multiplies what an ordinary test run does.
fn times(ordinary: usize) -> usize {
    let factor = std::env::var("VELATURA_LOAD")
        .ok()
        .and_then(|n| n.parse().ok());
    ordinary * factor.unwrap_or(1)
}

/// All jobs that the server knows, by id.
fn all_jobs(server: &Server) -> BTreeMap<String, Value> {
    let mut jobs = BTreeMap::new();
    let mut next = String::new();
    loop {
        let page = server.get(&format!("/v1/jobs?limit=200{next}")).body;
        for job in page["jobs"].as_array().unwrap() {
            let before = jobs.insert(job["id"].as_str().unwrap().to_string(), job.clone());
            assert!(before.is_none(), "listed twice: {job}");
        }
        match page["next"].as_str() {
            Some(id) => next = format!("&before={id}"),
            None => return jobs,
        }
    }
}

fn memory(server: &Server) -> i64 {
    let text = String::from_utf8(server.bytes("/metrics")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("velatura_resident_memory_bytes "));
    line.unwrap().parse().unwrap()
}

#[test]
fn twenty_clients_lose_and_double_nothing() {
    let bench = Bench::new();
    let config = bench.path("serve.toml");
    std::fs::write(&config, "[limits]\nqueue = 300\n").unwrap();
    let server = Server::start(&bench.path("data"), &["--config", config.to_str().unwrap()]);
    let warm = server.submit(&small("warm"));
    server.finished(&warm);
    let accepted = Mutex::new(BTreeSet::new());
    let over = AtomicBool::new(false);
    let mut latencies = Vec::new();
    let mut early = 0;
    thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut latencies = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(server.get("/healthz").status, 200);
                latencies.push(start.elapsed());
                thread::sleep(Duration::from_millis(5));
            }
            latencies
        });
        let (server, accepted) = (&server, &accepted);
        let clients: Vec<_> = (0..20)
            .map(|client| {
                scope.spawn(move || {
                    let mut random = Random(client as u64 + 1);
                    for i in 0..10 {
                        let key = format!("{client}-{i}");
                        let body = with(&small(&key), json!({"steps": 2, "seed": i}));
                        let send = || {
                            server.post_with(
                                "/v1/jobs",
                                &body,
                                &[("Idempotency-Key", key.as_str())],
                            )
                        };
                        let first = send();
                        assert_eq!(first.status, 201, "{}", first.body);
                        let id = first.body["id"].as_str().unwrap().to_string();
                        assert!(accepted.lock().unwrap().insert(id.clone()), "{id} twice");
                        match random.below(5) {
                            // A network that loses answers.
                            0 => assert_eq!(send().body["id"], id.as_str()),
                            1 => assert_eq!(
                                server
                                    .post(&format!("/v1/jobs/{id}/cancel"), &json!({}))
                                    .status,
                                200
                            ),
                            // Follows for a moment and hangs up.
                            2 => {
                                let url = format!("{}/v1/jobs/{id}/events", server.url);
                                let mut first = [0; 8];
                                let events = server.agent.get(url).call().unwrap();
                                events
                                    .into_body()
                                    .into_reader()
                                    .read_exact(&mut first)
                                    .unwrap();
                            }
                            3 => assert!(
                                ["done", "cancelled"]
                                    .contains(&server.events(&id, None).last().unwrap().1.as_str())
                            ),
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        early = memory(server);
        for id in accepted.lock().unwrap().iter() {
            server.finished(id);
        }
        over.store(true, Ordering::Relaxed);
        latencies = health.join().unwrap();
    });
    let mut jobs = all_jobs(&server);
    jobs.remove(&warm);
    let ids: BTreeSet<String> = jobs.keys().cloned().collect();
    assert_eq!(ids, *accepted.lock().unwrap());
    assert_eq!(ids.len(), 200);
    for job in jobs.values() {
        let count = job["pictures"].as_array().unwrap().len();
        match job["state"].as_str().unwrap() {
            "done" => assert_eq!(count, 1, "{job}"),
            "cancelled" => assert!(count <= 1, "{job}"),
            _ => panic!("{job}"),
        }
    }
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let late = memory(&server);
    println!(
        "health: median {:?}, 99 % {:?} of {}; memory {} → {} MB",
        at(0.5),
        at(0.99),
        latencies.len(),
        early / 1_000_000,
        late / 1_000_000
    );
    // On a machine of its own the 99th percentile is far below 50 ms (docs/serving.md); other tests run beside this one.
    assert!(at(0.5) < Duration::from_millis(50), "{:?}", at(0.5));
    assert!(late - early < 50_000_000, "{early} → {late}");
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let bench = Bench::new();
    let data = bench.path("data");
    let mut random = Random(42);
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..times(20) {
        let server = Server::start(&data, &[]);
        // What has been there once stays as it was.
        for (url, bytes) in seen.iter().rev().take(3) {
            assert_eq!(&server.bytes(url), bytes, "{url}");
        }
        let after = Duration::from_millis(random.below(250) as u64);
        let start = Instant::now();
        while start.elapsed() < after {
            let count = 1 + random.below(3) as u64;
            let more = json!({"steps": 2 + random.below(6), "seed": round, "count": count});
            let answer = server.post("/v1/jobs", &with(&small("a house"), more));
            match answer.status {
                201 => accepted.insert(answer.body["id"].as_str().unwrap().to_string(), count),
                429 => None,
                other => panic!("{other}: {}", answer.body),
            };
            if let Some(picture) =
                server.get("/v1/jobs?state=done&limit=1").body["jobs"][0]["pictures"][0].as_object()
            {
                let url = picture["url"].as_str().unwrap().to_string();
                let bytes = server.bytes(&url);
                seen.insert(url, bytes);
            }
        }
        server.kill();
    }
    assert!(accepted.len() >= 20, "{}", accepted.len());
    let server = Server::start(&data, &[]);
    for (id, count) in &accepted {
        let job = server.finished(id);
        assert_eq!(job["state"], "done", "{job}");
        let seeds: Vec<u64> = job["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["seed"].as_u64().unwrap())
            .collect();
        let first = job["order"]["seeds"][0].as_u64().unwrap();
        assert_eq!(seeds, (first..first + count).collect::<Vec<_>>());
    }
    for (url, bytes) in &seen {
        assert_eq!(&server.bytes(url), bytes, "{url}");
    }
    let jobs: BTreeSet<String> = all_jobs(&server).into_keys().collect();
    // An answer that a kill cut off belongs to a job that nobody was told of; all others are ours.
    let told: BTreeSet<String> = accepted.into_keys().collect();
    assert!(jobs.is_superset(&told) && jobs.len() <= told.len() + times(20));
    println!("{} jobs, {} pictures looked at", told.len(), seen.len());
}

/// A request that is wrong in one way or another, and sometimes right.
fn nonsense(random: &mut Random) -> Vec<u8> {
    const PATHS: &[&str] = &[
        "/v1/jobs",
        "/v1/jobs",
        "/v1/jobs",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
        "/v1/images/generations",
        "/v1/images/edits",
        "/sdapi/v1/png-info",
        "/sdapi/v1/options",
        "/v1/jobs?limit=x&before=y&state=z",
        "/v1/jobs/../../etc/passwd",
        "/v1/jobs/%2e%2e%2f/events",
        "/v1/jobs/x/pictures/-1",
        "/sdapi/v1/progress?skip_current_image=9",
        "/%00",
        "/v1/jobs/\u{fc}",
        "//",
        "/v1/models/%ff",
    ];
    const FIELDS: &[&str] = &[
        "prompt",
        "negative_prompt",
        "steps",
        "seed",
        "seeds",
        "count",
        "sampler",
        "schedule",
        "eta",
        "width",
        "height",
        "init_image",
        "mask",
        "strength",
        "mask_blur",
        "guidance_scale",
        "cfg_scale",
        "sampler_name",
        "scheduler",
        "init_images",
        "batch_size",
        "n_iter",
        "override_settings",
        "n",
        "size",
        "model",
        "image",
        "denoising_strength",
        "masked_content",
        "padding_mask_crop",
        "inpainting_fill",
    ];
    let value = |random: &mut Random| match random.below(16) {
        0 => json!(null),
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(1e308),
        5 => json!(u64::MAX),
        6 => json!("x"),
        7 => json!(""),
        8 => json!([]),
        9 => json!({}),
        10 => json!([[["x"]]]),
        11 => json!("data:image/png;base64,iVBORw0KGgo="),
        12 => json!("iVBORw0KGgoAAAANSUhEUgAAw1AAAMNQCAIAAAA="),
        13 => json!("\u{0}\u{202e}\u{1f43b}"),
        14 => json!(0.5),
        _ => json!(7),
    };
    let mut fields = json!({"prompt": "x", "steps": 0});
    for _ in 0..random.below(5) {
        fields[FIELDS[random.below(FIELDS.len())]] = value(random);
    }
    let mut body = fields.to_string().into_bytes();
    for _ in 0..random.below(4) {
        let at = random.below(body.len());
        match random.below(3) {
            0 => body[at] = random.next() as u8,
            1 => body.truncate(at + 1),
            _ => body.insert(at, random.next() as u8),
        }
    }
    let method = [
        "POST", "POST", "POST", "GET", "DELETE", "PUT", "OPTIONS", "HEAD",
    ][random.below(8)];
    let kind = [
        "application/json",
        "application/json",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "application/json; charset=\u{fc}",
    ][random.below(7)];
    let length = match random.below(8) {
        0 => body.len() + 1 + random.below(50),
        1 => body.len() / 2,
        _ => body.len(),
    };
    let mut request = format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n",
        PATHS[random.below(PATHS.len())]
    )
    .into_bytes();
    match random.below(6) {
        0 => request.extend(b"Idempotency-Key: \xff\xfe\r\n"),
        1 => request.extend(b"Last-Event-ID: 99999999999999999999\r\n"),
        2 => request.extend(b"Authorization: Basic ====\r\n"),
        3 => request.extend(b"Origin: https://evil.example\r\n"),
        _ => {}
    }
    request.extend(b"\r\n");
    request.extend(body);
    request
}

#[test]
fn nonsense_is_answered_and_never_harms() {
    let bench = Bench::new();
    let server = Server::start(&bench.path("data"), &[]);
    let address = server.url.strip_prefix("http://").unwrap();
    let each = times(1000);
    let statuses = Mutex::new(BTreeMap::<u16, usize>::new());
    thread::scope(|scope| {
        for seed in 1..=4u64 {
            let statuses = &statuses;
            scope.spawn(move || {
                let mut random = Random(seed * 0x9e37_79b9);
                for _ in 0..each {
                    let request = nonsense(&mut random);
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    // The server may have answered and hung up before everything was sent.
                    let _ = stream.write_all(&request);
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    let mut answer = Vec::new();
                    if let Err(error) = stream.read_to_end(&mut answer) {
                        let cut = error.kind() == std::io::ErrorKind::ConnectionReset;
                        assert!(cut, "{error}: {}", String::from_utf8_lossy(&request));
                    }
                    // A body that was cut short need not be answered.
                    let text = String::from_utf8_lossy(&answer);
                    let status = text
                        .split(' ')
                        .nth(1)
                        .and_then(|status| status.parse().ok())
                        .unwrap_or(0);
                    assert!(
                        status < 500,
                        "{text}\n{}",
                        String::from_utf8_lossy(&request)
                    );
                    *statuses.lock().unwrap().entry(status).or_default() += 1;
                }
            });
        }
    });
    println!("{:?}", statuses.lock().unwrap());
    assert_eq!(server.get("/healthz").status, 200);
    let job = server.finished(&server.submit(&small("still there")));
    assert_eq!(job["state"], "done");
}
