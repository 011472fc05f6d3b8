//! A server for pictures: a native API with durable jobs, the APIs of AUTOMATIC1111's web UI and of OpenAI for the
//! programs that speak them, and a page for people.
//!
//! Reading order: [`settings`] (what can be set), [`order`] (a job's content), [`store`] (SQLite: what was accepted is
//! kept), [`live`] (what happens to a job while someone watches), `queue` (who is next), [`jobs`] (queue and database
//! together), `worker` (the threads that paint), [`app`] (what handlers share), `guard` (who may ask), `routes` (one file
//! per API). Only `wire*.rs` knows how a request or an answer is spelled.
//!
//! The event loop never paints and never waits for the disk: painting has threads of its own, and the database is
//! asked on tokio's blocking threads.

pub mod app;
mod guard;
pub mod jobs;
mod links;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod order;
pub mod problem;
mod queue;
mod routes;
mod server;
pub mod settings;
pub mod store;
mod wire;
mod wire_openai;
mod wire_sdapi;
mod worker;

pub use server::{ServeError, serve};
pub use settings::Settings;
