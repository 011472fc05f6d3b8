//! A part of a model while a picture is painted.

use crate::Result;

/// One of a model's networks: kept for many pictures, or read when its turn comes and given up after it.
pub enum Part<'a, T> {
    /// In memory already.
    Kept(&'a T),
    /// Read from the checkpoint for each use.
    OnDemand(&'a dyn Fn() -> Result<T>),
}

impl<T> Part<'_, T> {
    /// Works with the network.
    ///
    /// # Errors
    /// It cannot be read; those of `work`.
    pub fn with<R>(&self, work: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        match self {
            Part::Kept(part) => work(part),
            Part::OnDemand(read) => work(&read()?),
        }
    }
}

impl<T> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Part<'_, T> {}
