//! What is done to many arrays in one launch, which a table in the card's memory names: a launch for each of a model's hundreds
//! of parameters would take the processor longer than the card.

use crate::device::THREADS;
use crate::{Gpu, Memory, Pointer};

/// Numbers of an array that a block takes: enough for the search for its array not to count.
const PIECE: usize = 8192;

/// Arrays that a row has room for.
const ROOM: usize = 4;

/// A table of arrays in a card's memory, in rows of one length each.
pub(crate) struct Table {
    rows: Memory,
    count: usize,
    pieces: usize,
}

impl Table {
    pub fn new<'a, const N: usize>(
        gpu: &Gpu,
        rows: impl IntoIterator<Item = [&'a Memory; N]>,
    ) -> Table {
        let (mut words, mut count, mut pieces) = (Vec::new(), 0, 0);
        for row in rows {
            let len = row[0].len();
            let mut pointers = [Pointer::NONE; ROOM];
            for (pointer, array) in pointers.iter_mut().zip(row) {
                assert_eq!(array.len(), len, "arrays of one row");
                *pointer = array.all();
            }
            // As struct Row of multi.cu.
            words.extend(pointers.into_iter().flat_map(Pointer::words));
            words.extend([whole(pieces), whole(len)]);
            count += 1;
            pieces += len.div_ceil(PIECE);
        }
        Table {
            rows: gpu.upload_indices(&words),
            count,
            pieces,
        }
    }

    /// Launches a kernel with a block for every piece of a row. The table comes before its other arrays, the number of rows and
    /// the length of a piece before its other whole numbers.
    pub fn launch(
        &self,
        kernel: &'static str,
        pointers: &[Pointer],
        numbers: &[usize],
        fractions: &[f32],
    ) {
        let pointers = [&[self.rows.all()], pointers].concat();
        let numbers = [&[self.count, PIECE], numbers].concat();
        let blocks = [self.pieces, THREADS];
        self.rows
            .gpu()
            .launch(kernel, blocks, &pointers, &numbers, fractions);
    }

    /// Room for a number of each piece.
    pub fn room_for_pieces(&self) -> Memory {
        self.rows.gpu().allocate(self.pieces)
    }

    /// Adds up what the pieces of each row have summed.
    pub fn add_pieces(&self, sums: &Memory) -> Memory {
        let gpu = self.rows.gpu();
        let totals = gpu.allocate(self.count);
        let pointers = [self.rows.all(), sums.all(), totals.all()];
        let numbers = [self.count, PIECE];
        let blocks = [self.count, THREADS];
        gpu.launch("add_pieces", blocks, &pointers, &numbers, &[]);
        totals
    }
}

fn whole(number: usize) -> u32 {
    u32::try_from(number).unwrap_or_else(|_| panic!("{number} is more than a card counts here"))
}

/// The sums of some arrays, or of their squares.
pub fn sums(gpu: &Gpu, arrays: &[&Memory], squared: bool) -> Vec<f64> {
    let table = Table::new(gpu, arrays.iter().map(|&x| [x]));
    let pieces = table.room_for_pieces();
    table.launch("sums", &[pieces.all()], &[usize::from(squared)], &[]);
    let mut totals = vec![0.0; arrays.len()];
    table.add_pieces(&pieces).download(&mut totals);
    totals.into_iter().map(f64::from).collect()
}
