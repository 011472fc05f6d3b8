//! Where a tensor's numbers are: in the processor's memory, in a graphics card's, or in both. Each gets them from the
//! other when they are asked for there; a card has them in bf16 too, once its matrix units have asked.

use std::sync::OnceLock;

use velatura_gpu::{Gpu, Memory, elementwise};

use crate::buffer::Buffer;

pub(crate) struct Storage {
    len: usize,
    host: OnceLock<Buffer>,
    device: OnceLock<Memory>,
    rounded: OnceLock<Memory>,
}

impl From<Buffer> for Storage {
    fn from(buffer: Buffer) -> Self {
        Storage {
            len: buffer.len(),
            host: OnceLock::from(buffer),
            device: OnceLock::new(),
            rounded: OnceLock::new(),
        }
    }
}

impl From<Memory> for Storage {
    fn from(memory: Memory) -> Self {
        Storage {
            len: memory.len(),
            host: OnceLock::new(),
            device: OnceLock::from(memory),
            rounded: OnceLock::new(),
        }
    }
}

impl Storage {
    pub fn len(&self) -> usize {
        self.len
    }

    /// The numbers for the processor.
    pub fn host(&self) -> &[f32] {
        self.host.get_or_init(|| {
            let mut buffer = Buffer::for_output(self.len);
            match self.device.get() {
                Some(memory) => memory.download(&mut buffer),
                None => unreachable!("a tensor is somewhere"),
            }
            buffer
        })
    }

    /// The numbers for the card.
    pub fn device(&self, gpu: &Gpu) -> &Memory {
        self.device.get_or_init(|| gpu.upload(self.host()))
    }

    /// The numbers in bf16 for the card, two in each of the memory's.
    pub fn rounded(&self, gpu: &Gpu) -> &Memory {
        self.rounded
            .get_or_init(|| elementwise::round_bf16(self.device(gpu)))
    }

    /// The numbers for writing on the processor; what was on a card is given up.
    pub fn host_mut(&mut self) -> &mut [f32] {
        self.host();
        self.device.take();
        self.rounded.take();
        match self.host.get_mut() {
            Some(buffer) => buffer,
            None => unreachable!("it was just put there"),
        }
    }

    /// The numbers for writing on the card; what was in the processor's memory is given up.
    pub fn device_mut(&mut self, gpu: &Gpu) -> &mut Memory {
        self.device(gpu);
        self.host.take();
        self.rounded.take();
        match self.device.get_mut() {
            Some(memory) => memory,
            None => unreachable!("it was just put there"),
        }
    }
}
