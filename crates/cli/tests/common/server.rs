//! A running `velatura serve`, asked over HTTP.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;
use velatura::image::Image;

use super::models;

/// The longest that anything here may take: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A server with a tiny model, on a port of its own. It is killed when this is dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub agent: Agent,
}

/// An answer: status, headers and JSON; `null` where the body is none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Value,
}

impl Server {
    /// Starts a server that keeps its jobs in `data`, and waits until it is ready.
    pub fn start(data: &Path, args: &[&str]) -> Server {
        let server = Server::start_unready(data, args);
        let start = Instant::now();
        while server.get("/readyz").status != 200 {
            assert!(start.elapsed() < PATIENCE, "the server did not get ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Starts a server and waits only until it listens.
    pub fn start_unready(data: &Path, args: &[&str]) -> Server {
        let model = models().join("sd15");
        let mut child = Command::new(env!("CARGO_BIN_EXE_velatura"))
            .args(["serve", "--port", "0", "--precision", "f32", "--data"])
            .arg(data)
            .arg("-m")
            .arg(model)
            .args(args)
            .env("RUST_LOG", "warn")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map(Result::unwrap)
            .inspect(|line| eprintln!("server: {line}"))
            .find_map(|line| {
                let rest = line.strip_prefix("listening on ")?.to_string();
                Some(rest.split(';').next().unwrap().to_string())
            })
            .expect("the server says where it listens");
        // Whatever else it says belongs to the test's output, and must not fill the pipe.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("server: {line}"))
        });
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Server { child, url, agent }
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(
            self.agent
                .get(format!("{}{path}", self.url))
                .call()
                .unwrap(),
        )
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[])
    }

    pub fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send_json(body).unwrap())
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(
            self.agent
                .delete(format!("{}{path}", self.url))
                .call()
                .unwrap(),
        )
    }

    /// The bytes behind a path.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let mut response = self
            .agent
            .get(format!("{}{path}", self.url))
            .call()
            .unwrap();
        assert_eq!(response.status(), 200);
        response.body_mut().read_to_vec().unwrap()
    }

    /// Submits a job and returns its id.
    pub fn submit(&self, body: &Value) -> String {
        let answer = self.post("/v1/jobs", body);
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_string()
    }

    /// The job at its end.
    pub fn finished(&self, id: &str) -> Value {
        let start = Instant::now();
        loop {
            let job = self.get(&format!("/v1/jobs/{id}")).body;
            if !["queued", "running"].contains(&job["state"].as_str().unwrap_or("?")) {
                return job;
            }
            assert!(start.elapsed() < PATIENCE, "{job}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Every event of a job, from the one after `last`: number, name and data.
    pub fn events(&self, id: &str, last: Option<usize>) -> Vec<(usize, String, Value)> {
        let mut request = self.agent.get(format!("{}/v1/jobs/{id}/events", self.url));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let response = request.call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut text = String::new();
        response
            .into_body()
            .into_reader()
            .read_to_string(&mut text)
            .unwrap();
        text.split("\n\n")
            .filter_map(|block| {
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|line| line.trim().to_string())
                };
                let data = field("data:")?;
                Some((
                    field("id:").unwrap().parse().unwrap(),
                    field("event:").unwrap(),
                    serde_json::from_str(&data).unwrap(),
                ))
            })
            .collect()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit status.
    #[cfg(unix)]
    pub fn stop(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut response: Response<ureq::Body>) -> Answer {
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_json().unwrap_or(Value::Null),
    }
}

/// A small job.
pub fn small(prompt: &str) -> Value {
    json!({"prompt": prompt, "steps": 3, "seed": 7, "width": 64, "height": 64, "sampler": "ddim"})
}

/// `body` with more fields.
pub fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Standard base64, for the few pictures here.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A picture's PNG file in base64.
pub fn png(image: &Image) -> String {
    base64(&image.encode_png(&[]).unwrap())
}

/// A picture of soft colours.
pub fn picture(width: usize, height: usize) -> Image {
    let pixels = (0..width * height)
        .flat_map(|i| [(i * 3 % 251) as u8, (i / 5 % 256) as u8, 90])
        .collect();
    Image::new(width, height, pixels)
}
