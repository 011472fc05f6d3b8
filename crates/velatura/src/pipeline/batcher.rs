//! Several pictures in one batch. Each is walked by a sampler of its own on a thread of its own, with its own steps,
//! guidance and noise; samplers know nothing of each other. They only meet where they ask the UNet, which answers all of
//! them at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use velatura_tensor::Tensor;

use crate::unet::Question;

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
    /// By the number of the seat, too.
    questions: Vec<(usize, Question)>,
    /// Nothing where the model panicked.
    answers: BTreeMap<usize, Option<Tensor>>,
    next: usize,
}

/// Height, width and channels.
type Shape = [usize; 3];

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
    /// What `model` answers, in one batch with what the others at the table ask. Waits until all of them have asked. `model`
    /// has one answer for each question, which depends on that question alone.
    pub(super) fn ask(
        &self,
        model: impl Fn(&[Question]) -> Vec<Tensor>,
        question: Question,
    ) -> Tensor {
        let alone = || model(std::slice::from_ref(&question)).remove(0);
        let mut table = self.batcher.lock();
        if table.others(self) == 0 {
            drop(table);
            return alone();
        }
        table.questions.push((self.number, question.clone()));
        loop {
            if let Some(answer) = table.answers.remove(&self.number) {
                drop(table);
                // A panic is a bug of ours; it shall cost the one that it belongs to.
                return answer.unwrap_or_else(alone);
            }
            if let Some((seats, questions)) = table.round(self) {
                drop(table);
                let answers = catch_unwind(AssertUnwindSafe(|| model(&questions)));
                let answers: Vec<Option<Tensor>> = match answers {
                    Ok(answers) => answers.into_iter().map(Some).collect(),
                    Err(_) => vec![None; questions.len()],
                };
                table = self.batcher.lock();
                table.answers.extend(seats.into_iter().zip(answers));
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
    /// How many sit at latents of the same shape.
    fn others(&self, seat: &Seat) -> usize {
        let same =
            |(number, shape): &(&usize, &Shape)| **number != seat.number && **shape == seat.shape;
        self.seats.iter().filter(same).count()
    }

    /// The questions of all that sit at latents of this seat's shape, as soon as every one of them has asked.
    fn round(&mut self, seat: &Seat) -> Option<(Vec<usize>, Vec<Question>)> {
        let own = |number: &usize| self.seats.get(number) == Some(&seat.shape);
        let asked = self
            .questions
            .iter()
            .filter(|(number, _)| own(number))
            .count();
        if asked == 0 || asked < 1 + self.others(seat) {
            return None;
        }
        let (round, rest) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition::<Vec<_>, _>(|(number, _)| own(number));
        self.questions = rest;
        Some(round.into_iter().unzip())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::nn::Condition;
    use crate::unet::Conditions;

    /// A question whose time is `t`, for `batch` samples of x = 100·batch.
    fn question(batch: usize, t: f32) -> Question {
        Question {
            x: Tensor::full(&[batch, 1, 1, 2], 100.0 * batch as f32),
            conditions: Conditions {
                time: Condition::new(Tensor::full(&[batch, 1], t)),
                context: Condition::new(Tensor::zeros(&[batch, 1, 1])),
                recompute: false,
            },
        }
    }

    /// x + t; counts the questions of each call.
    fn model(calls: &Mutex<Vec<usize>>) -> impl Fn(&[Question]) -> Vec<Tensor> {
        |questions| {
            calls.lock().unwrap().push(questions.len());
            let t = |q: &Question| q.conditions.time.value().as_slice()[0];
            questions.iter().map(|q| q.x.add_scalar(t(q))).collect()
        }
    }

    fn ask(seat: &Seat, calls: &Mutex<Vec<usize>>, batch: usize, t: f32) -> f32 {
        let answer = seat.ask(model(calls), question(batch, t));
        assert_eq!(answer.shape(), [batch, 1, 1, 2]);
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
        assert_eq!(*calls.lock().unwrap(), [3, 2, 1]);
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
                    let fragile = |questions: &[Question]| {
                        let broken = |q: &Question| q.conditions.time.value().as_slice()[0] > 0.0;
                        assert!(!questions.iter().any(broken), "not this one");
                        questions.iter().map(|q| q.x.clone()).collect()
                    };
                    let t = f32::from(u8::from(seat.number == 0));
                    seat.ask(fragile, question(1, t));
                })
            });
            threads.map(|thread| thread.join().is_ok()).to_vec()
        });
        assert_eq!(results, [false, true]);
    }
}
