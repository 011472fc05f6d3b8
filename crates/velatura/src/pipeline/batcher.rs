//! Several pictures in one batch. Each is walked by a sampler of its own on a thread of its own, with its own steps,
//! guidance and noise; samplers know nothing of each other. They only meet where they ask the UNet, which answers all of
//! them at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use velatura_tensor::Tensor;

/// Where the questions of several samplers come together. Whoever is on the way has a [`Seat`]; when everyone at latents
/// of one shape has asked, the one that asked last runs the model once for all of them.
#[derive(Default)]
pub struct Batcher {
    table: Mutex<Table>,
    bell: Condvar,
}

#[derive(Default)]
struct Table {
    /// The shape that each one's latents have, by the number of the seat.
    seats: BTreeMap<usize, Shape>,
    questions: Vec<Question>,
    /// Nothing where the model panicked.
    answers: BTreeMap<usize, Option<Tensor>>,
    next: usize,
}

/// Height, width and channels.
type Shape = [usize; 3];

#[derive(Clone)]
struct Question {
    seat: usize,
    x: Tensor,
    timesteps: Vec<f32>,
    context: Tensor,
}

/// A sampler's place, from its first step to its last: the others wait for its questions.
pub(super) struct Seat<'a> {
    batcher: &'a Batcher,
    number: usize,
    shape: Shape,
}

impl Batcher {
    /// A place for a sampler whose latents are `[_, h, w, C]`.
    pub(super) fn sit(&self, latents: &Tensor) -> Seat<'_> {
        let shape = [latents.dim(1), latents.dim(2), latents.dim(3)];
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        table.seats.insert(number, shape);
        Seat {
            batcher: self,
            number,
            shape,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat<'_> {
    /// What `model` says to x `[B, h, w, C]`, B timesteps and context `[B, S, D]`, in one batch with what the others at
    /// the table ask. Waits until all of them have asked. Each sample's answer depends on that sample alone.
    pub(super) fn ask(
        &self,
        model: impl Fn(&Tensor, &[f32], &Tensor) -> Tensor,
        x: &Tensor,
        timesteps: &[f32],
        context: &Tensor,
    ) -> Tensor {
        let mut table = self.batcher.lock();
        if table.others(self).next().is_none() {
            drop(table);
            return model(x, timesteps, context);
        }
        table.questions.push(Question {
            seat: self.number,
            x: x.clone(),
            timesteps: timesteps.to_vec(),
            context: context.clone(),
        });
        loop {
            if let Some(answer) = table.answers.remove(&self.number) {
                drop(table);
                // A panic is a bug of ours; it shall cost the one that it belongs to.
                return answer.unwrap_or_else(|| model(x, timesteps, context));
            }
            if let Some(questions) = table.round(self) {
                drop(table);
                let answers = catch_unwind(AssertUnwindSafe(|| answer_all(&model, &questions)));
                let answers: Vec<Option<Tensor>> = match answers {
                    Ok(answers) => answers.into_iter().map(Some).collect(),
                    Err(_) => vec![None; questions.len()],
                };
                table = self.batcher.lock();
                let seats = questions.iter().map(|question| question.seat);
                table.answers.extend(seats.zip(answers));
                self.batcher.bell.notify_all();
                continue;
            }
            let woken = self.batcher.bell.wait(table);
            table = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut table = self.batcher.lock();
        table.seats.remove(&self.number);
        // The others may have waited for this one alone.
        self.batcher.bell.notify_all();
    }
}

impl Table {
    fn others(&self, seat: &Seat) -> impl Iterator<Item = &usize> {
        self.seats
            .iter()
            .filter(|(number, shape)| **number != seat.number && **shape == seat.shape)
            .map(|(number, _)| number)
    }

    /// The questions of all that sit at latents of this seat's shape, as soon as every one of them has asked.
    fn round(&mut self, seat: &Seat) -> Option<Vec<Question>> {
        let own = |question: &Question| self.seats.get(&question.seat) == Some(&seat.shape);
        let asked = self.questions.iter().filter(|q| own(q)).count();
        if asked == 0 || asked < 1 + self.others(seat).count() {
            return None;
        }
        let (round, rest) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition(|q| self.seats.get(&q.seat) == Some(&seat.shape));
        self.questions = rest;
        Some(round)
    }
}

/// Runs `model` once on all questions, one after the other along the batch, and cuts its output into their answers.
fn answer_all(
    model: impl Fn(&Tensor, &[f32], &Tensor) -> Tensor,
    questions: &[Question],
) -> Vec<Tensor> {
    let all = |part: fn(&Question) -> &Tensor| {
        Tensor::concat_batch(&questions.iter().map(part).collect::<Vec<_>>())
    };
    let timesteps: Vec<f32> = questions
        .iter()
        .flat_map(|question| question.timesteps.iter().copied())
        .collect();
    let output = model(&all(|q| &q.x), &timesteps, &all(|q| &q.context));
    let mut start = 0;
    questions
        .iter()
        .map(|question| {
            let count = question.x.dim(0);
            start += count;
            output.narrow_batch(start - count, count)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// x + t for every sample; counts the calls by their batch.
    fn model<'a>(calls: &'a Mutex<Vec<usize>>) -> impl Fn(&Tensor, &[f32], &Tensor) -> Tensor + 'a {
        |x, timesteps, context| {
            assert_eq!((x.dim(0), x.dim(0)), (timesteps.len(), context.dim(0)));
            calls.lock().unwrap().push(timesteps.len());
            let sample = x.len() / x.dim(0);
            let values = x.as_slice().iter().enumerate();
            let sums = values.map(|(i, x)| x + timesteps[i / sample]).collect();
            Tensor::from_vec(sums, x.shape())
        }
    }

    fn ask(seat: &Seat, calls: &Mutex<Vec<usize>>, batch: usize, t: f32) -> f32 {
        let x = Tensor::full(&[batch, 1, 1, 2], 100.0 * batch as f32);
        let context = Tensor::zeros(&[batch, 1, 1]);
        let answer = seat.ask(model(calls), &x, &vec![t; batch], &context);
        assert_eq!(answer.shape(), x.shape());
        assert!(answer.as_slice().iter().all(|v| *v == answer.as_slice()[0]));
        answer.as_slice()[0]
    }

    #[test]
    fn all_that_sit_at_one_table_are_answered_in_one_call() {
        let (batcher, calls) = (Batcher::default(), Mutex::default());
        let latents = Tensor::zeros(&[1, 1, 1, 2]);
        let seats: Vec<Seat> = (0..3).map(|_| batcher.sit(&latents)).collect();
        // Of another size: nobody waits for it.
        let elsewhere = batcher.sit(&Tensor::zeros(&[1, 2, 2, 2]));
        thread::scope(|scope| {
            for (i, seat) in seats.into_iter().enumerate() {
                let calls = &calls;
                // The first leaves after one step, the second after two, the third after three.
                scope.spawn(move || {
                    for step in 0..=i {
                        let t = (10 * i + step) as f32;
                        let batch = 1 + i % 2;
                        assert_eq!(ask(&seat, calls, batch, t), 100.0 * batch as f32 + t);
                    }
                });
            }
        });
        drop(elsewhere);
        // 1 + 2 + 1 samples, then 2 + 1, then 1.
        assert_eq!(*calls.lock().unwrap(), [4, 3, 1]);
        let table = batcher.lock();
        assert!(table.seats.is_empty() && table.questions.is_empty() && table.answers.is_empty());
    }

    #[test]
    fn a_panic_costs_the_one_that_it_belongs_to() {
        let batcher = Batcher::default();
        let latents = Tensor::zeros(&[1, 1, 1, 2]);
        let seats = [batcher.sit(&latents), batcher.sit(&latents)];
        let results: Vec<bool> = thread::scope(|scope| {
            let threads = seats.map(|seat| {
                scope.spawn(move || {
                    let bad = seat.number == 0;
                    let x = Tensor::full(&[1, 1, 1, 2], f32::from(u8::from(bad)));
                    let fragile = |x: &Tensor, _: &[f32], _: &Tensor| {
                        assert!(x.as_slice().iter().all(|x| *x == 0.0), "not this one");
                        x.clone()
                    };
                    seat.ask(fragile, &x, &[0.0], &Tensor::zeros(&[1, 1, 1]));
                })
            });
            threads.map(|thread| thread.join().is_ok()).to_vec()
        });
        assert_eq!(results, [false, true]);
    }
}
