//! The phone app: static files under a closed policy.
//!
//! The policy is what stands between a mistake in the app and the keys of whoever uses it: nothing inline, nothing from
//! elsewhere, no script from a string. Whoever serves the app can read everything all the same; the README says so.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::config::App;

include!(concat!(env!("OUT_DIR"), "/app.rs"));

/// What is shown when the binary was built without the app.
const NO_APP: &[u8] =
    b"<!doctype html><meta charset=utf-8><title>Happy Remote</title><p>This relay was built without the phone app. \
Build it with <code>cargo xtask web</code>, then build the relay again.";

/// Trusted Types allow one policy, `happy`, through which the app names its worker and service worker. `wss:` is there because
/// a machine may move its relay to another host than the app's.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
img-src 'self' data: blob:; media-src 'self' blob: mediastream:; connect-src 'self' wss:; worker-src 'self'; \
manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
require-trusted-types-for 'script'; trusted-types happy";

const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", "camera=(self), microphone=(), geolocation=()"),
];

/// The app of a relay.
pub(crate) enum Assets {
    Embedded(HashMap<&'static str, Asset>),
    Folder(PathBuf),
    Off,
}

/// The app that is built into this program, for who serves it elsewhere than at a relay.
pub struct EmbeddedApp(Assets);

impl EmbeddedApp {
    /// The app.
    #[allow(clippy::new_without_default, reason = "it is no default of anything")]
    pub fn new() -> Self {
        Self(Assets::new(&App::Embedded))
    }

    /// The file at a path of a URL, if there is one, with the headers that it is to have.
    pub async fn answer(&self, path: &str, asked: &HeaderMap) -> Option<Response> {
        self.0.answer(path, asked).await
    }
}

/// A file in the binary.
pub(crate) struct Asset {
    bytes: &'static [u8],
    etag: String,
}

impl Assets {
    pub(crate) fn new(app: &App) -> Self {
        match app {
            App::Off => Assets::Off,
            App::Folder(folder) => Assets::Folder(folder.clone()),
            App::Embedded => {
                let mut files: HashMap<_, _> =
                    FILES.iter().map(|(name, bytes)| (*name, Asset { bytes, etag: etag(bytes) })).collect();
                files.entry("index.html").or_insert_with(|| Asset { bytes: NO_APP, etag: etag(NO_APP) });
                Assets::Embedded(files)
            }
        }
    }

    /// The file at a path of a URL, if there is one.
    pub(crate) async fn answer(&self, path: &str, asked: &HeaderMap) -> Option<Response> {
        let name = match path.strip_prefix('/')? {
            "" => "index.html",
            name => name,
        };
        match self {
            Assets::Off => None,
            Assets::Embedded(files) => {
                let asset = files.get(name)?;
                let packed = files.get(format!("{name}.br").as_str()).filter(|_| takes_brotli(asked));
                let sent = packed.unwrap_or(asset);
                let mut response = file(name, &sent.etag, sent.bytes.into(), asked);
                if packed.is_some() {
                    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
                }
                if packed.is_some() || files.contains_key(format!("{name}.br").as_str()) {
                    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
                }
                Some(response)
            }
            Assets::Folder(folder) => {
                let bytes = tokio::fs::read(inside(folder, name)?).await.ok()?;
                Some(file(name, &etag(&bytes), bytes.into(), asked))
            }
        }
    }
}

/// A path below a folder. None for anything that could lead out of it.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    name.components().all(|part| matches!(part, Component::Normal(_))).then(|| folder.join(name))
}

fn etag(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let short: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{short}\"")
}

fn takes_brotli(asked: &HeaderMap) -> bool {
    let accepted = asked.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').map(str::trim).any(|coding| coding == "br")
}

fn file(name: &str, etag: &str, bytes: axum::body::Bytes, asked: &HeaderMap) -> Response {
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let mut response = Response::new(if unchanged { Body::empty() } else { bytes.into() });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    let caching = if is_hashed(name) { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// Whether a name changes with its contents: the bundler writes `assets/name-HASH.ext`, with eight characters of hash.
fn is_hashed(name: &str) -> bool {
    let Some(file) = name.strip_prefix("assets/") else { return false };
    let stem = file.split('.').next().unwrap_or(file);
    let Some((rest, hash)) = stem.len().checked_sub(8).and_then(|n| stem.split_at_checked(n)) else { return false };
    rest.ends_with(['-', '_']) && hash.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        // Without this type the browser does not compile while it loads.
        "wasm" => "application/wasm",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_hash_are_immutable() {
        assert!(is_hashed("assets/index-DdZ9_x-a.js"));
        assert!(is_hashed("assets/happy_phone_bg-BfTq0k2_.wasm"));
        assert!(!is_hashed("index.html"));
        assert!(!is_hashed("sw.js"));
        assert!(!is_hashed("assets/logo.svg"));
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let folder = Path::new("/app");
        assert_eq!(inside(folder, "assets/a.js"), Some("/app/assets/a.js".into()));
        for name in ["../secret", "assets/../../secret", "/etc/passwd", "./../x"] {
            assert_eq!(inside(folder, name), None, "{name}");
        }
    }
}
