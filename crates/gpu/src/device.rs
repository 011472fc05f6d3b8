//! A card and its memory.

use std::collections::HashMap;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cuda::Cuda;
use crate::driver::{Args, Driver};
use crate::matmul::Product;
use crate::{Error, Result};

/// Threads of a block where there is no reason for another number.
pub(crate) const THREADS: usize = 256;

/// Blocks that one launch is cut into at most; their threads then take several elements each.
const MOST_BLOCKS: usize = 1 << 16;

/// Places that a block takes of a sample at a time where it only maps numbers: four a thread.
pub(crate) const PLACES: usize = 64;

/// A graphics card. Cloning shares it.
///
/// What is launched is done later, in order; only a [download](Memory::download) waits. Operations on a card have no
/// way to fail that the caller could do anything about, so they unwind with an [`Error`] as payload, which
/// [`Gpu::catch`] makes a result of.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    driver: Driver,
    /// Memory that waits to be used again, by its length.
    idle: Mutex<HashMap<usize, Vec<u64>>>,
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, HashMap<usize, Vec<u64>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release_idle(&self) {
        for (len, addresses) in self.idle().drain() {
            for address in addresses {
                self.driver.free(address, len);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // All memory has come here: what is in use keeps the card.
        self.release_idle();
    }
}

impl Gpu {
    /// NVIDIA's card number `index`, through CUDA.
    ///
    /// # Errors
    /// When there is none, or CUDA's libraries are missing.
    pub fn cuda(index: usize) -> Result<Gpu> {
        Ok(Self::of(Driver::Cuda(Cuda::open(index)?)))
    }

    /// No card: the kernels run on the processor, slowly.
    #[cfg(feature = "emulator")]
    pub fn emulated() -> Gpu {
        Self::of(Driver::Emulator(crate::emulator::Emulator))
    }

    /// The card that tests use: the emulated one, or NVIDIA's first with `VELATURA_TEST_GPU=cuda`.
    ///
    /// # Panics
    /// When that is not there.
    #[cfg(feature = "emulator")]
    pub fn for_tests() -> Gpu {
        match std::env::var("VELATURA_TEST_GPU").as_deref() {
            Ok("cuda") => sure(Self::cuda(0)),
            _ => Self::emulated(),
        }
    }

    fn of(driver: Driver) -> Gpu {
        let idle = Mutex::default();
        Gpu(Arc::new(Inner { driver, idle }))
    }

    /// What the card is called.
    pub fn name(&self) -> String {
        self.0.driver.name()
    }

    /// Whether it has matrix units for bf16 (NVIDIA's Ampere and later).
    pub(crate) fn has_matrix_units(&self) -> bool {
        self.0.driver.has_matrix_units()
    }

    /// Runs `f`, whose operations on cards fail by unwinding.
    ///
    /// # Errors
    /// What a card could not do.
    pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).map_err(|payload| {
            match payload.downcast::<Error>() {
                Ok(error) => *error,
                Err(other) => resume_unwind(other),
            }
        })
    }

    /// Room for `len` numbers, whose values are unspecified.
    pub fn allocate(&self, len: usize) -> Memory {
        let waiting = self.idle().get_mut(&len).and_then(Vec::pop);
        let address = waiting.unwrap_or_else(|| {
            let driver = &self.0.driver;
            let fresh = driver.allocate(len).or_else(|_| {
                // What waits is of other lengths.
                self.release_idle();
                driver.allocate(len)
            });
            sure(fresh)
        });
        Memory {
            gpu: self.clone(),
            address,
            len,
        }
    }

    /// `values`, copied to the card.
    pub fn upload(&self, values: &[f32]) -> Memory {
        let memory = self.allocate(values.len());
        sure(self.0.driver.upload(values, memory.address));
        memory
    }

    /// Whole numbers, copied to the card as they are.
    pub(crate) fn upload_indices(&self, values: &[u32]) -> Memory {
        let bits: Vec<f32> = values.iter().map(|&value| f32::from_bits(value)).collect();
        self.upload(&bits)
    }

    /// `len` times `value`.
    pub fn filled(&self, len: usize, value: f32) -> Memory {
        let memory = self.allocate(len);
        self.fours("fill", [1, len], &[memory.all()], &[], &[value]);
        memory
    }

    /// Gives memory that waits to be used again back to the card.
    pub fn release_idle(&self) {
        self.0.release_idle();
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<usize, Vec<u64>>> {
        self.0.idle()
    }

    /// Launches a kernel that takes `count` elements, whose number is its first.
    pub(crate) fn each(
        &self,
        kernel: &'static str,
        count: usize,
        pointers: &[Pointer],
        numbers: &[usize],
        fractions: &[f32],
    ) {
        let blocks = count.div_ceil(THREADS).min(MOST_BLOCKS);
        let mut all = vec![count];
        all.extend(numbers);
        self.launch(kernel, [blocks, THREADS], pointers, &all, fractions);
    }

    /// Launches a kernel that takes four numbers of `rows × columns` at a time; how often it does that and the columns are
    /// its first numbers.
    pub(crate) fn fours(
        &self,
        kernel: &'static str,
        [rows, columns]: [usize; 2],
        pointers: &[Pointer],
        numbers: &[usize],
        fractions: &[f32],
    ) {
        let all = [&[columns], numbers].concat();
        self.each(
            kernel,
            rows * columns.div_ceil(4),
            pointers,
            &all,
            fractions,
        );
    }

    /// Launches a kernel over x `[samples, places, C]`, a block for 64 channels of `chunk` places; places, C and chunk are
    /// its first numbers.
    pub(crate) fn tiles(
        &self,
        kernel: &'static str,
        [samples, places, channels, chunk]: [usize; 4],
        pointers: &[Pointer],
        numbers: &[usize],
    ) {
        let blocks = samples * places.div_ceil(chunk) * channels.div_ceil(64);
        let all = [&[places, channels, chunk], numbers].concat();
        self.launch(kernel, [blocks, THREADS], pointers, &all, &[]);
    }

    /// Launches a kernel with `[blocks, threads]`.
    pub(crate) fn launch(
        &self,
        kernel: &'static str,
        [blocks, threads]: [usize; 2],
        pointers: &[Pointer],
        numbers: &[usize],
        fractions: &[f32],
    ) {
        self.launch_sharing(kernel, [blocks, threads, 0], pointers, numbers, fractions);
    }

    /// Launches a kernel with `[blocks, threads, bytes of shared memory]`, beside that of its arrays.
    pub(crate) fn launch_sharing(
        &self,
        kernel: &'static str,
        [blocks, threads, bytes]: [usize; 3],
        pointers: &[Pointer],
        numbers: &[usize],
        fractions: &[f32],
    ) {
        if blocks == 0 {
            return;
        }
        let mut args = Args::default();
        for (to, from) in args.pointers.iter_mut().zip(pointers) {
            *to = from.0;
        }
        for (to, &from) in args.numbers.iter_mut().zip(numbers) {
            *to = i32::try_from(from).unwrap_or_else(|_| {
                panic!("{kernel} of {from} numbers, more than a card counts here")
            });
        }
        for (to, from) in args.fractions.iter_mut().zip(fractions) {
            *to = *from;
        }
        let launched =
            self.0
                .driver
                .launch(kernel, [blocks, threads, bytes].map(|x| x as u32), &args);
        sure(launched);
    }

    pub(crate) fn multiply(&self, product: &Product, a: Pointer, b: Pointer, c: Pointer) {
        sure(self.0.driver.multiply(product, a.0, b.0, c.0));
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.name())
    }
}

fn sure<T>(result: Result<T>) -> T {
    // Without the message of a panic: whoever catches it says what is wrong.
    result.unwrap_or_else(|error| resume_unwind(Box::new(error)))
}

/// An array of f32 on a card, whose memory waits to be used again when it is dropped: what was launched before reads
/// it first.
pub struct Memory {
    gpu: Gpu,
    address: u64,
    len: usize,
}

impl Memory {
    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The card that it is on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Copies the numbers to `values`.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn download(&self, values: &mut [f32]) {
        assert_eq!(values.len(), self.len, "download");
        sure(self.gpu.0.driver.download(self.address, values));
    }

    /// A copy.
    pub fn duplicate(&self) -> Memory {
        let copy = self.gpu.allocate(self.len);
        let pointers = [self.all(), copy.all()];
        self.gpu
            .fours("scale", [1, self.len], &pointers, &[], &[1.0, 0.0]);
        copy
    }

    /// Where it begins.
    pub fn all(&self) -> Pointer {
        Pointer(self.address)
    }

    /// Where its number `offset` is.
    ///
    /// # Panics
    /// When it has not as many.
    pub fn at(&self, offset: usize) -> Pointer {
        assert!(offset <= self.len, "number {offset} of {}", self.len);
        Pointer(self.address + (offset * size_of::<f32>()) as u64)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.gpu
            .idle()
            .entry(self.len)
            .or_default()
            .push(self.address);
    }
}

/// A place in a card's memory, for the arguments of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Pointer(u64);

impl Pointer {
    /// None, where a kernel can do without.
    pub const NONE: Pointer = Pointer(0);

    /// Its lower and upper half, for tables in a card's memory.
    pub(crate) fn words(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    /// That of `memory`, if there is some.
    pub fn of(memory: Option<&Memory>) -> Pointer {
        memory.map_or(Pointer::NONE, Memory::all)
    }
}
