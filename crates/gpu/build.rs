//! With the feature `emulator`, compiles the kernels for the processor too.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    emulator();
}

/// Compiles `kernels/*.cu` as C, with a table of the kernels by name.
#[cfg(feature = "emulator")]
fn emulator() {
    use std::{env, fs, path::Path};

    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=emulator");
    let mut files: Vec<_> = fs::read_dir("kernels")
        .expect("the folder kernels")
        .map(|entry| entry.expect("an entry of the folder kernels").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    files.sort();
    let mut source = String::from("#include \"emulator.h\"\n");
    let mut table = String::from("const struct Entry KERNELS[] = {\n");
    for file in &files {
        let text = fs::read_to_string(file).expect("a kernel's source");
        for kernel in text.split("\nKERNEL(").skip(1) {
            let name = kernel.split(')').next().expect("a kernel's name");
            // Kernels whose threads do not wait for each other need no fibers.
            let waits = ["BARRIER", "_sum(", "_max("]
                .iter()
                .any(|mark| kernel.contains(mark));
            table += &format!("    {{\"{name}\", {name}, {}}},\n", u8::from(waits));
        }
        source += &text;
    }
    source += &table;
    source += "    {0, 0, 0}\n};\n";
    let path = Path::new(&env::var("OUT_DIR").expect("cargo's folder")).join("kernels.c");
    fs::write(&path, source).expect("writing the kernels' source");
    cc::Build::new()
        .file(path)
        .file("emulator/emulator.c")
        .include("emulator")
        .opt_level(2)
        .compile("velatura_gpu_emulator");
}
