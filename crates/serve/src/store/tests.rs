//! What was accepted is kept, and what is kept can be found.

use super::*;

fn order() -> Order {
    Order {
        prompt: "a red car".into(),
        negative_prompt: String::new(),
        seeds: vec![1, 2],
        steps: 4,
        guidance_scale: 7.5,
        sampler: "ddim".into(),
        schedule: "normal".into(),
        eta: 0.0,
        width: 64,
        height: 64,
        strength: None,
        masked_content: None,
        mask_blur: 0.0,
        padding_mask_crop: None,
        mode: "txt2img".into(),
    }
}

#[test]
fn what_was_accepted_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let attachments = Attachments {
        init: Some(vec![1, 2, 3]),
        mask: None,
    };
    {
        let mut store = Store::open(Some(folder.path())).unwrap();
        // The folder belongs to one server.
        assert!(Store::open(Some(folder.path())).is_err());
        store.accept(first, &order(), &attachments, None).unwrap();
        store
            .accept(second, &order(), &Attachments::default(), None)
            .unwrap();
        store.begin(first).unwrap();
        store.keep_picture(first, 0, "{}", b"png").unwrap();
        assert!(store.keep_picture(first, 0, "{}", b"png").is_err());
    }
    let store = Store::open(Some(folder.path())).unwrap();
    assert_eq!(store.unfinished().unwrap(), [first, second]);
    let job = store.job(first).unwrap().unwrap();
    assert_eq!((job.state, &job.order), (State::Running, &order()));
    assert_eq!(job.pictures, [(0, "{}".to_string())]);
    assert_eq!(store.attachments(first).unwrap(), attachments);
    assert_eq!(store.picture(first, 0).unwrap().unwrap(), b"png");
    assert_eq!(store.picture(first, 1).unwrap(), None);
    assert!(store.finish(first, State::Done, None).unwrap());
    assert!(!store.finish(first, State::Cancelled, None).unwrap());
    assert_eq!(store.unfinished().unwrap(), [second]);
    let list = |before, state| -> Vec<Uuid> {
        let jobs = store.list(10, before, state).unwrap();
        jobs.iter().map(|job| job.id).collect()
    };
    assert_eq!(list(None, None), [second, first]);
    assert_eq!(list(Some(second), None), [first]);
    assert_eq!(list(None, Some(State::Done)), [first]);
    assert_eq!(
        store.secret("links").unwrap(),
        store.secret("links").unwrap()
    );
}

#[test]
fn a_key_brings_one_job_for_one_request() {
    let mut store = Store::open(None).unwrap();
    let id = Uuid::now_v7();
    let key = Key {
        key: "mine".into(),
        fingerprint: vec![1],
    };
    let none = Attachments::default();
    let mut accept = |id, key: &Key| store.accept(id, &order(), &none, Some(key)).unwrap();
    assert_eq!(accept(id, &key), Accepted::New);
    assert_eq!(accept(Uuid::now_v7(), &key), Accepted::Again(id));
    let other = Key {
        fingerprint: vec![2],
        ..key
    };
    assert_eq!(accept(Uuid::now_v7(), &other), Accepted::Conflict);
}

#[test]
fn only_finished_jobs_are_forgotten() {
    let mut store = Store::open(None).unwrap();
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    for &id in &ids {
        store
            .accept(id, &order(), &Attachments::default(), None)
            .unwrap();
    }
    for &id in &ids[..3] {
        store.keep_picture(id, 0, "{}", b"png").unwrap();
        store.finish(id, State::Done, None).unwrap();
    }
    assert!(!store.forget(ids[3]).unwrap());
    let retention = Retention { days: 1, jobs: 1 };
    assert_eq!(store.tidy(&retention).unwrap(), 2);
    let left: Vec<Uuid> = store
        .list(9, None, None)
        .unwrap()
        .iter()
        .map(|job| job.id)
        .collect();
    assert_eq!(left, [ids[3], ids[2]]);
    assert_eq!(store.picture(ids[0], 0).unwrap(), None);
    assert!(store.forget(ids[2]).unwrap());
    assert_eq!(store.picture(ids[2], 0).unwrap(), None);
}
