//! As much of an API server as npc talks to: three lists with pages, watches with bookmarks, and a
//! place to write events to. Ten thousand policies need no etcd, and the moment of a write is known.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::space::Space;

/// Where it listens, on the loopback of its namespace.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";
/// Between two bookmarks of a watch on which nothing happens.
const BOOKMARK: Duration = Duration::from_secs(5);

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pods,
    Namespaces,
    Policies,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str, &'static str); 3] = [
        (Self::Pods, "/api/v1/pods", "v1", "Pod"),
        (Self::Namespaces, "/api/v1/namespaces", "v1", "Namespace"),
        (
            Self::Policies,
            "/apis/networking.k8s.io/v1/networkpolicies",
            "networking.k8s.io/v1",
            "NetworkPolicy",
        ),
    ];

    /// API version and kind of its objects.
    fn words(self) -> (&'static str, &'static str) {
        let found = Self::ALL.iter().find(|(kind, ..)| *kind == self);
        found.map_or(("", ""), |(_, _, version, name)| (version, name))
    }
}

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<(Kind, String), Arc<str>>,
    /// Every change, with the version it made; what a watch tells.
    changes: Vec<(u64, Kind, Arc<str>)>,
}

/// The server's contents. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Api {
    store: Arc<(Mutex<Store>, Condvar)>,
}

/// A request, as far as it matters.
struct Request {
    path: String,
    query: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Api {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an object; watches are told before this returns to them.
    pub(crate) fn put(&self, kind: Kind, mut object: Value) {
        let mut store = self.lock();
        store.version += 1;
        let version = store.version;
        let (api, name) = kind.words();
        object["apiVersion"] = json!(api);
        object["kind"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let word = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = format!("{}/{}", word("namespace"), word("name"));
        let text: Arc<str> = object.to_string().into();
        let before = store.objects.insert((kind, key), Arc::clone(&text));
        let verb = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let line = format!("{{\"type\":\"{verb}\",\"object\":{text}}}\n");
        store.changes.push((version, kind, line.into()));
        drop(store);
        self.store.1.notify_all();
    }

    /// Serves from now on on the loopback of `space`.
    pub(crate) fn serve(&self, space: &Space) -> anyhow::Result<()> {
        let listener = space
            .run(|| TcpListener::bind(ADDRESS))?
            .context("cannot listen for npc")?;
        let api = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let api = api.clone();
                // A connection ends with an error when npc does.
                std::thread::spawn(move || api.connection(stream));
            }
        });
        Ok(())
    }

    fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        while let Some(request) = read(&mut reader)? {
            let list = Kind::ALL.iter().find(|(_, path, ..)| *path == request.path);
            match list {
                Some((kind, ..)) if request.query.contains_key("watch") => {
                    return self.watch(*kind, &request, &mut writer);
                }
                Some((kind, ..)) => answer(&mut writer, "200 OK", &self.list(*kind, &request))?,
                // Events; they are taken and forgotten.
                None if request.path.ends_with("/events") => {
                    answer(
                        &mut writer,
                        "201 Created",
                        &String::from_utf8_lossy(&request.body),
                    )?;
                }
                None => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "NotFound", "message": "not served here", "code": 404});
                    answer(&mut writer, "404 Not Found", &status.to_string())?;
                }
            }
        }
        Ok(())
    }

    fn list(&self, kind: Kind, request: &Request) -> String {
        let number = |name: &str| request.query.get(name)?.parse::<usize>().ok();
        let (from, limit) = (
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(usize::MAX),
        );
        let store = self.lock();
        let all = || store.objects.iter().filter(|((of, _), _)| *of == kind);
        let items: Vec<&str> = all()
            .skip(from)
            .take(limit)
            .map(|(_, text)| text.as_ref())
            .collect();
        let next = if from + items.len() < all().count() {
            (from + items.len()).to_string()
        } else {
            String::new()
        };
        let (api, name) = kind.words();
        format!(
            "{{\"kind\":\"{name}List\",\"apiVersion\":\"{api}\",\"metadata\":\
             {{\"resourceVersion\":\"{}\",\"continue\":\"{next}\"}},\"items\":[{}]}}",
            store.version,
            items.join(",")
        )
    }

    fn watch(&self, kind: Kind, request: &Request, writer: &mut TcpStream) -> io::Result<()> {
        writer.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
              Transfer-Encoding: chunked\r\n\r\n",
        )?;
        let (api, name) = kind.words();
        let since = request.query.get("resourceVersion");
        let mut seen: u64 = since
            .and_then(|version| version.parse().ok())
            .unwrap_or_default();
        loop {
            let store = self.lock();
            let (store, _) = self
                .store
                .1
                .wait_timeout_while(store, BOOKMARK, |store| store.version <= seen)
                .unwrap_or_else(PoisonError::into_inner);
            let begin = store
                .changes
                .partition_point(|(version, ..)| *version <= seen);
            let mut lines: String = store.changes[begin..]
                .iter()
                .filter(|(_, of, _)| *of == kind)
                .map(|(_, _, line)| line.as_ref())
                .collect();
            if store.version <= seen {
                let bookmark = json!({"type": "BOOKMARK", "object": {"kind": name,
                    "apiVersion": api, "metadata": {"resourceVersion": store.version.to_string()}}});
                lines = format!("{bookmark}\n");
            }
            seen = store.version.max(seen);
            drop(store);
            if !lines.is_empty() {
                writer.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes())?;
            }
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, value)| *name != "watch" || *value == "true")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(Some(Request {
        path: path.to_owned(),
        query,
        body,
    }))
}

fn answer(writer: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes())?;
    writer.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &[(&str, &str)]) -> Request {
        Request {
            path: String::new(),
            query: query
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }

    #[test]
    fn a_list_comes_in_pages_and_every_object_once() {
        let api = Api::default();
        for n in 0..5 {
            api.put(
                Kind::Pods,
                json!({"metadata": {"name": format!("p{n}"), "namespace": "x"}}),
            );
            api.put(
                Kind::Namespaces,
                json!({"metadata": {"name": format!("n{n}")}}),
            );
        }
        let mut names = Vec::new();
        let mut next = "0".to_owned();
        let mut pages = 0;
        while !next.is_empty() {
            let page = api.list(Kind::Pods, &request(&[("limit", "2"), ("continue", &next)]));
            let page: Value = serde_json::from_str(&page).unwrap();
            for item in page["items"].as_array().unwrap() {
                names.push(item["metadata"]["name"].as_str().unwrap().to_owned());
            }
            next = page["metadata"]["continue"].as_str().unwrap().to_owned();
            pages += 1;
        }
        assert_eq!((names.join(" ").as_str(), pages), ("p0 p1 p2 p3 p4", 3));
    }

    #[test]
    fn a_second_write_of_an_object_modifies_it() {
        let api = Api::default();
        for _ in 0..2 {
            api.put(
                Kind::Policies,
                json!({"metadata": {"name": "p", "namespace": "x"}}),
            );
        }
        let store = api.lock();
        let verbs: Vec<bool> = store
            .changes
            .iter()
            .map(|(_, _, line)| line.contains("MODIFIED"))
            .collect();
        assert_eq!((verbs, store.objects.len()), (vec![false, true], 1));
    }
}
