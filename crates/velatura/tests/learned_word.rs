//! Words that are taught to a text encoder: found in a text, and looked up in the rows that were learnt.

mod support;

use support::{relative, topic};
use velatura::checkpoint::Component;
use velatura::clip::{ClipTextConfig, ClipTextModel};
use velatura::tokenizer::Tokenizer;
use velatura::weights::{Mode, Store};
use velatura_tensor::{Parameter, Precision, Tensor};

#[test]
fn a_word_gets_the_ids_after_the_vocabulary_whatever_its_case() {
    let mut tokenizer = Tokenizer::clip().unwrap();
    let plain = tokenizer.encode("a red car").unwrap();
    assert_eq!(tokenizer.add_word("<toy>", 1).unwrap(), 49408);
    assert_eq!(tokenizer.add_word("<my-style>", 2).unwrap(), 49409);
    assert_eq!(tokenizer.encode("a red car").unwrap(), plain);
    let ids = |text: &str| {
        let encoding = tokenizer.encode(text).unwrap();
        encoding.ids[1..=encoding.length].to_vec()
    };
    let (a, car) = (plain.ids[1], plain.ids[3]);
    assert_eq!(ids("a <toy> car"), [a, 49408, car]);
    assert_eq!(ids("A <Toy> car"), [a, 49408, car]);
    // Two tokens for one word.
    assert_eq!(ids("a <my-style> car"), [a, 49409, 49410, car]);
    for word in ["<toy>", "car</w>", " "] {
        assert!(tokenizer.clone().add_word(word, 1).is_err(), "{word:?}");
    }
}

#[test]
fn learned_rows_take_the_place_of_the_tables() {
    let Some(models) = topic("models") else {
        return;
    };
    let component = Component::open(&models.join("sd15/text_encoder"), None).unwrap();
    let config = ClipTextConfig::read(&component).unwrap();
    let store = Store::load(&component, Mode::Inference(Precision::F32));
    let mut model = ClipTextModel::load(&config, &store.root()).unwrap();
    let first = config.vocab_size as u32;
    let width = config.hidden_size;
    // The rows of two tokens, the other way round.
    let table = model.token_table();
    let row = |id: usize| table.as_slice()[id * width..][..width].to_vec();
    let rows = Tensor::from_vec([row(7), row(5)].concat(), &[2, width]);
    assert!(model.check_ids(&[1, first]).is_err());
    model
        .learn(first, Parameter::frozen("<toy>", rows))
        .unwrap();
    model.check_ids(&[1, first + 1]).unwrap();
    assert!(model.check_ids(&[first + 2]).is_err());
    let learned = model.forward(&[1, first, first + 1, 2, first, 3], 2);
    let spelled = model.forward(&[1, 7, 5, 2, 7, 3], 2);
    assert_eq!(relative(&learned, &spelled), 0.0);
    let narrow = Parameter::frozen("<toy>", Tensor::zeros(&[1, width - 1]));
    assert!(model.learn(first + 2, narrow).is_err());
}
