//! What can go wrong on a card.

/// The result of opening a card.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong on a card.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no card that can be used.
    #[error("no NVIDIA GPU can be used: {0}; leave --device out to use the processor")]
    NoGpu(String),
    /// A library of CUDA that is needed is not there.
    #[error(
        "{library} was not found, which comes with CUDA 12 or 13 (nvidia.com/cuda); if it is installed, name its folder in \
         LD_LIBRARY_PATH"
    )]
    NoLibrary {
        /// Its name.
        library: &'static str,
    },
    /// The card's memory does not suffice.
    #[error(
        "the GPU's memory is full: {wanted} MB more were needed and {free} MB are free; take a smaller batch_size, or a larger \
         accumulate"
    )]
    Full {
        /// Megabytes.
        wanted: usize,
        /// Megabytes.
        free: usize,
    },
    /// Anything else.
    #[error("the GPU failed at {what}: {why}")]
    Failed {
        /// What was asked of it.
        what: String,
        /// What it said.
        why: String,
    },
}
