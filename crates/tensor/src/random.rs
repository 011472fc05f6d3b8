//! PyTorch's CPU random numbers.
