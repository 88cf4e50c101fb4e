//! Makes the messages and the client stubs from the protos, without a protoc to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files: Vec<_> = std::fs::read_dir("proto/linksgate/v1")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    let described = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(described)?;
    Ok(())
}
