//! Shell: makes the table of the browser client's built files, so that the program carries them. Without built files a page that says so stands in.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Deeper folders are not looked into.
const DEPTH_MAX: usize = 8;

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let built = here.join("../../web/dist");
    println!("cargo::rerun-if-changed={}", built.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if built.join("index.html").is_file() {
        gather(&built, "", 0, &mut files)?;
    } else {
        files.push(("/index.html".to_owned(), here.join("src/http/placeholder.html")));
    }
    files.sort();
    let rows = files.iter().map(|(name, path)| {
        let path = path.canonicalize()?;
        Ok(format!(
            "    ({name:?}, include_bytes!({:?})),\n",
            path.display().to_string()
        ))
    });
    let rows = rows.collect::<io::Result<String>>()?;
    fs::write(out.join("site.rs"), format!("&[\n{rows}]\n"))
}

fn gather(folder: &Path, name: &str, depth: usize, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for item in fs::read_dir(folder)? {
        let item = item?;
        let inner = format!("{name}/{}", item.file_name().to_string_lossy());
        if item.file_type()?.is_dir() {
            gather(&item.path(), &inner, depth + 1, files)?;
        } else {
            println!("cargo::rerun-if-changed={}", item.path().display());
            files.push((inner, item.path()));
        }
    }
    Ok(())
}
