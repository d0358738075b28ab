//! The local API and the document that describes it: every operation is driven with values made from its schema and from outside of it. No
//! answer is a 5xx, and none is one that the document does not name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::Home;
use harness::http::{Answer, Http};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// The document.
#[derive(Debug)]
struct Document(Value);

impl Document {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.resolve(
                self.0.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{name} is nowhere")),
            ),
            None => schema,
        }
    }

    /// What is wrong with a value, if it is none of this schema.
    fn fault(&self, schema: &Value, value: &Value) -> Option<String> {
        let schema = self.resolve(schema);
        if let Some(all) = schema["allOf"].as_array() {
            return all.iter().find_map(|one| self.fault(one, value));
        }
        for any in ["oneOf", "anyOf"] {
            if let Some(choices) = schema[any].as_array() {
                let faults: Vec<_> = choices.iter().map(|choice| self.fault(choice, value)).collect();
                return faults.iter().all(Option::is_some).then(|| format!("{value} is none of {faults:?}"));
            }
        }
        if let Some(listed) = schema["enum"].as_array()
            && !listed.contains(value)
        {
            return Some(format!("{value} is none of {listed:?}"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let is = |name: &str| match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("the type {other}"),
        };
        if !types.iter().any(|name| is(name)) {
            return Some(format!("{value} is no {types:?}"));
        }
        if schema["format"] == "uuid" && value.as_str().is_some_and(|text| text.len() != 36) {
            return Some(format!("{value} is no UUID"));
        }
        if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
            && number < least
        {
            return Some(format!("{value} is below {least}"));
        }
        if let Some(items) = value.as_array() {
            return items.iter().find_map(|item| self.fault(&schema["items"], item));
        }
        let object = value.as_object()?;
        let missing =
            schema["required"].as_array().into_iter().flatten().find(|key| !object.contains_key(key.as_str().unwrap()));
        if let Some(key) = missing {
            return Some(format!("{key} is missing in {value}"));
        }
        let known = schema["properties"].as_object()?;
        object.iter().find_map(|(key, value)| known.get(key).and_then(|schema| self.fault(schema, value)))
    }

    /// Values of a schema.
    fn values(&self, schema: &Value) -> BoxedStrategy<Value> {
        let schema = self.resolve(schema);
        if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            return proptest::strategy::Union::new(choices.iter().map(|choice| self.values(choice))).boxed();
        }
        if let Some(all) = schema["allOf"].as_array() {
            let parts: Vec<_> = all.iter().map(|one| self.values(one)).collect();
            return parts
                .prop_map(|parts| {
                    Value::Object(parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect())
                })
                .boxed();
        }
        if let Some(listed) = schema["enum"].as_array() {
            return proptest::sample::select(listed.clone()).boxed();
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => return anything(),
        };
        let of_type = |name: &str| match name {
            "object" => self.objects(schema),
            "array" => proptest::collection::vec(self.values(&schema["items"]), 0..4).prop_map(Value::Array).boxed(),
            "string" if schema["format"] == "uuid" => {
                any::<u128>().prop_map(|n| json!(uuid::Uuid::from_u128(n))).boxed()
            }
            "string" => text().prop_map(Value::String).boxed(),
            "boolean" => any::<bool>().prop_map(Value::Bool).boxed(),
            "integer" => integers(schema).prop_map(|n| json!(n)).boxed(),
            "number" => any::<f64>().prop_map(|n| json!(n)).boxed(),
            _ => Just(Value::Null).boxed(),
        };
        proptest::strategy::Union::new(types.iter().map(|name| of_type(name))).boxed()
    }

    fn objects(&self, schema: &Value) -> BoxedStrategy<Value> {
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields: Vec<BoxedStrategy<Option<(String, Value)>>> = Vec::new();
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let key = key.clone();
            let must = required.contains(&key.as_str());
            let field = self.values(schema).prop_map(move |value| (key.clone(), value));
            fields.push(if must { field.prop_map(Some).boxed() } else { proptest::option::of(field).boxed() });
        }
        let more = match &schema["additionalProperties"] {
            schema @ Value::Object(_) => proptest::collection::vec((text(), self.values(schema)), 0..3).boxed(),
            _ => Just(Vec::new()).boxed(),
        };
        (fields, more)
            .prop_map(|(fields, more)| Value::Object(fields.into_iter().flatten().chain(more).collect()))
            .boxed()
    }
}

/// Texts that mean nothing to anybody, and some that are known to hurt.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "\\PC{0,12}",
        Just("x".repeat(5_000)),
        Just("\0".to_owned()),
        Just("a\r\nb: c".to_owned()),
        Just("../../etc/passwd".to_owned()),
        Just("\u{202e}\u{feff}🦀".to_owned()),
    ]
}

fn integers(schema: &Value) -> BoxedStrategy<i128> {
    let least = schema["minimum"].as_i64().map_or(i128::from(i64::MIN), i128::from);
    let most = match schema["format"].as_str() {
        Some("int32") => i128::from(i32::MAX),
        _ => i128::from(i64::MAX),
    };
    prop_oneof![Just(least), Just(most), least.max(0)..1_000, least..most].boxed()
}

/// Values of any kind.
fn anything() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

/// An operation as it is sent.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || byte == b'-' {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Calls of an operation: parameters and body by the schema, or not.
fn calls(document: &Document, path: &str, operation: &Value, session: &str) -> BoxedStrategy<Call> {
    let mut parameters: Vec<BoxedStrategy<(String, String, Option<String>)>> = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, place) = (plain(&parameter["name"]), plain(&parameter["in"]));
        let good = document.values(&parameter["schema"]).prop_map(|value| plain(&value));
        let values = match place.as_str() {
            "path" => prop_oneof![3 => Just(session.to_owned()), 2 => good, 2 => text()].prop_map(Some).boxed(),
            _ => proptest::option::weighted(0.2, prop_oneof![6 => good, 1 => text()]).boxed(),
        };
        parameters.push(values.prop_map(move |value| (place.clone(), name.clone(), value)).boxed());
    }
    let body = match operation.pointer("/requestBody/content/application~1json/schema") {
        Some(schema) => prop_oneof![
            4 => document.values(schema).prop_map(|value| value.to_string()),
            2 => anything().prop_map(|value| value.to_string()),
            1 => text(),
            // Something that is nearly right.
            2 => (document.values(schema), any::<prop::sample::Index>()).prop_map(|(value, at)| {
                let mut text = value.to_string();
                let at = text.floor_char_boundary(at.index(text.len().max(1)));
                text.truncate(at);
                text
            }),
        ]
        .boxed(),
        None => Just(String::new()).boxed(),
    };
    let (path, has_body) = (path.to_owned(), !operation["requestBody"].is_null());
    (parameters, body, any::<bool>())
        .prop_map(move |(parameters, body, upgrade)| {
            let (mut path, mut query, mut headers) = (path.clone(), Vec::new(), Vec::new());
            for (place, name, value) in parameters {
                let Some(value) = value else { continue };
                match place.as_str() {
                    "path" => path = path.replace(&format!("{{{name}}}"), &encoded(&value)),
                    "query" => query.push(format!("{name}={}", encoded(&value))),
                    _ => headers.push((name, value.chars().filter(|c| c.is_ascii_graphic()).collect())),
                }
            }
            if !query.is_empty() {
                path = format!("{path}?{}", query.join("&"));
            }
            if has_body {
                headers.push(("Content-Type".into(), "application/json".into()));
            }
            if upgrade && path.contains("/term") {
                headers.extend(
                    [
                        ("Upgrade", "websocket"),
                        ("Sec-WebSocket-Version", "13"),
                        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                    ]
                    .map(|(name, value)| (name.into(), value.into())),
                );
            }
            Call { path, headers, body }
        })
        .boxed()
}

fn send(http: &Http, method: &str, call: &Call) -> Answer {
    let is_upgrade = call.headers.iter().any(|(name, _)| name == "Upgrade");
    let connection = if is_upgrade { "Upgrade" } else { "close" };
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n",
        method.to_uppercase(),
        call.path,
        http.host()
    );
    head.push_str(&format!("Authorization: {}\r\n", http.bearer()));
    call.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str(&format!("Content-Length: {}\r\n", call.body.len()));
    if is_upgrade {
        // Once upgraded it is not to wait for another request.
        head = head.replace("Content-Length: 0\r\n", "");
    }
    let answer = http.raw(format!("{head}\r\n{}", call.body).as_bytes());
    answer.unwrap_or_else(|| panic!("no answer to {method} {call:?}"))
}

/// What is wrong with an answer, by the document.
fn fault(document: &Document, operation: &Value, answer: &Answer) -> Option<String> {
    if answer.status >= 500 {
        return Some(format!("a {}: {}", answer.status, answer.text()));
    }
    let named = document.resolve(&operation["responses"][answer.status.to_string()]);
    if named.is_null() {
        return Some(format!("the document names no {}: {}", answer.status, answer.text()));
    }
    let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
    let content = match named["content"].as_object() {
        Some(content) => content,
        None => return (answer.status != 101).then(|| "an answer without a described body".to_owned()),
    };
    let Some(described) = content.get(&kind) else { return Some(format!("`{kind}` is none of {:?}", content.keys())) };
    if kind != "application/json" {
        return None;
    }
    match serde_json::from_slice(&answer.body) {
        Ok(value) => document.fault(&described["schema"], &value),
        Err(error) => Some(format!("{error}: {}", answer.text())),
    }
}

/// A daemon whose folder is a scratch folder, since some of what is asked for are relative paths.
fn started() -> (Home, tempfile::TempDir, Http) {
    let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
    let mut start = home.command(&["daemon", "start", "--api-port", "0", "--relay-port", "0"]);
    let started = start.current_dir(folder.path()).env("HOME", folder.path()).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let http = Http::of(&home);
    (home, folder, http)
}

/// Ends all sessions but one.
fn end_others(http: &Http, kept: &str) {
    for session in http.get("/sessions").json().as_array().unwrap() {
        if session["id"] != kept {
            http.delete(&format!("/sessions/{}", session["id"].as_str().unwrap()));
        }
    }
}

#[test]
fn the_document_is_whole() {
    let (_home, _folder, http) = started();
    let document = Document(http.get("/openapi.json").json());
    assert!(document.0["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document.0["openapi"]);
    let mut named = BTreeMap::new();
    for (path, operations) in document.0["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(
                operation["summary"].is_string() || operation["description"].is_string(),
                "{method} {path} says nothing"
            );
            named.insert(format!("{method} {path}"), operation["security"].clone());
        }
    }
    let open: Vec<_> =
        named.iter().filter(|(_, security)| **security == json!([{}])).map(|(name, _)| name.as_str()).collect();
    assert_eq!(open, ["get /health", "post /login"]);
    for operation in [
        "get /sessions",
        "post /sessions",
        "get /sessions/{id}",
        "delete /sessions/{id}",
        "get /sessions/{id}/term",
        "get /devices",
        "get /metrics",
    ] {
        assert_eq!(named[operation], json!([{ "token": [] }]), "{operation}");
    }
    // Every reference leads somewhere.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str().filter(|_| key == "$ref") {
                Some(reference) => found.push(reference.to_owned()),
                None => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document.0, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.0.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn no_value_of_any_schema_or_none_gets_an_answer_that_the_document_does_not_name() {
    let (_home, _folder, http) = started();
    let document = Arc::new(Document(http.get("/openapi.json").json()));
    let kept = http.post("/sessions", &json!({ "command": ["cat"] })).json()["id"].as_str().unwrap().to_owned();
    let mut seen: BTreeMap<String, BTreeMap<u16, u32>> = BTreeMap::new();
    for (path, operations) in document.0["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let statuses = std::cell::RefCell::new(BTreeMap::new());
            let calls = calls(&document, path, operation, &kept);
            // A runner counts the cases of all that it has run.
            let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
            let outcome = runner.run(&calls, |call| {
                // What is under test is not to be ended.
                prop_assume!(!(method == "delete" && call.path.contains(&kept)));
                let answer = send(&http, method, &call);
                *statuses.borrow_mut().entry(answer.status).or_default() += 1;
                let fault = fault(&document, operation, &answer);
                prop_assert!(fault.is_none(), "{} {:?}: {}", method, call, fault.unwrap_or_default());
                if path == "/sessions" && answer.status == 201 {
                    end_others(&http, &kept);
                }
                Ok(())
            });
            if let Err(error) = outcome {
                panic!("{method} {path}: {error}");
            }
            seen.insert(format!("{method} {path}"), statuses.into_inner());
        }
    }
    eprintln!("{seen:#?}");
    // The values reach what they are meant for, and what they are not.
    assert!(seen["post /sessions"].contains_key(&400), "{seen:?}");
    assert!(seen["post /sessions"].contains_key(&201) || seen["post /sessions"].contains_key(&422), "{seen:?}");
    assert!(seen["get /sessions/{id}/term"].contains_key(&101), "{seen:?}");
    assert!(seen["get /sessions/{id}"].contains_key(&200) && seen["get /sessions/{id}"].contains_key(&404), "{seen:?}");
    assert_eq!(
        http.get(&format!("/sessions/{kept}")).json()["state"],
        "running",
        "and the session that was there is unharmed"
    );
}
