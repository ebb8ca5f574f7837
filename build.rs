//! Compiles the protocols of `proto/`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "grpc")]
    grpc()?;
    Ok(())
}

#[cfg(feature = "grpc")]
fn grpc() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protocols = protox::compile(["inference.proto", "health.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let code = |folder: &str| {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder)?;
        // Tensors stay in the memory that they were read into; maps have one order.
        let code = tonic_prost_build::configure().out_dir(folder).bytes(".").btree_map(".");
        std::io::Result::Ok(code.build_transport(false))
    };
    code("server")?
        .build_client(false)
        .codec_path("crate::service::grpc::codec::Codec")
        .compile_fds(protocols.clone())?;
    // For the tests, which speak to the server from outside.
    code("client")?.build_server(false).compile_fds(protocols)?;
    Ok(())
}
