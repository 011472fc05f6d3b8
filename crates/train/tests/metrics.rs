//! PSNR, SSIM, Fréchet and kernel distance against the libraries of the field (`fixtures/make_metrics.py`).

mod common;

use serde_json::Value;
use velatura_train::evaluate::distance::{Features, frechet, kernel};
use velatura_train::evaluate::features::read;
use velatura_train::evaluate::quality::{psnr, ssim};

#[test]
fn metrics_are_the_libraries() {
    let Some(dir) = common::fixtures::topic("metrics") else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let near = |found: f64, wanted: &Value, tolerance: f64| {
        let wanted = wanted.as_f64().unwrap();
        let error = (found - wanted).abs();
        assert!(
            error <= tolerance * wanted.abs().max(1.0),
            "{found} and {wanted}"
        );
    };
    for (number, pair) in expected["pairs"].as_array().unwrap().iter().enumerate() {
        let picture = |which: &str| read(&dir.join(format!("{number}.{which}.png"))).unwrap();
        let (a, b) = (picture("a"), picture("b"));
        // Both are computed in f64.
        near(psnr(&a, &b), &pair["psnr"], 1e-12);
        let similarity = ssim(&a, &b).unwrap();
        near(similarity, &pair["ssim"], 1e-10);
        if !pair["ssim_torchmetrics"].is_null() {
            // Its window is made in f32.
            near(similarity, &pair["ssim_torchmetrics"], 1e-5);
        }
    }
    for set in expected["sets"].as_array().unwrap() {
        let width = set["width"].as_u64().unwrap() as usize;
        let features = |which: &str| {
            let values = set[which].as_array().unwrap().iter();
            let values: Vec<f32> = values.map(|x| x.as_f64().unwrap() as f32).collect();
            Features::new(&values, width)
        };
        let (a, b) = (features("a"), features("b"));
        // Where covariances are singular, scipy's root has errors of the root of epsilon.
        near(frechet(&a, &b).unwrap(), &set["frechet"], 1e-6);
        let size = a.len().min(b.len());
        // The first subset begins at the beginning, as the script's does.
        near(kernel(&a, &b, 1, size).unwrap().0, &set["kernel"], 1e-9);
    }
}
