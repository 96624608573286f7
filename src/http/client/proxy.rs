//! Which proxy a request goes by, if it goes by one.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use ::http::HeaderValue;
use url::Url;

use super::basic::take_userinfo;
use super::error::FetchError;

/// A proxy, and what it wants to know of who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Reads a URL, in which `http://` may be left out.
    fn parse(text: &str) -> Result<Rc<Proxy>, FetchError> {
        let scheme = if text.contains("://") { "" } else { "http://" };
        let invalid = |why: &str| {
            // The text may have a password in it.
            Err(FetchError::Invalid(format!("no URL of a proxy: {why}")))
        };
        let mut url = match Url::parse(&format!("{scheme}{text}")) {
            Ok(url) => url,
            Err(error) => return invalid(&error.to_string()),
        };
        if url.scheme() != "http" {
            return invalid(&format!("its scheme is {:?}, and not http", url.scheme()));
        }
        let authorization = take_userinfo(&mut url);
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Rc::new(Proxy { host, port, authorization }))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The proxies of each scheme, and what goes by none.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    http: Option<Rc<Proxy>>,
    https: Option<Rc<Proxy>>,
    direct: Vec<Direct>,
}

impl Proxies {
    /// All goes by one.
    pub(super) fn all(url: &str) -> Result<Proxies, FetchError> {
        let proxy = Some(Proxy::parse(url)?);
        Ok(Proxies { http: proxy.clone(), https: proxy, direct: Vec::new() })
    }

    /// What the environment says, `variable` being how it is asked.
    pub(super) fn from_env(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Proxies, FetchError> {
        let either = |name: &str| {
            let value = variable(&name.to_lowercase()).or_else(|| variable(name));
            value.filter(|value| !value.trim().is_empty())
        };
        let proxy = |name: &str| either(name).map(|url| Proxy::parse(url.trim())).transpose();
        let all = proxy("ALL_PROXY")?;
        // In a CGI script, `HTTP_PROXY` is what the client sent as a header `Proxy`.
        let http = match variable("REQUEST_METHOD") {
            None => proxy("HTTP_PROXY")?,
            Some(_) => None,
        };
        let direct = either("NO_PROXY").unwrap_or_default();
        Ok(Proxies {
            http: http.or_else(|| all.clone()),
            https: proxy("HTTPS_PROXY")?.or(all),
            direct: direct.split(',').filter_map(Direct::parse).collect(),
        })
    }

    /// The one that `url` is fetched by.
    pub(super) fn of(&self, url: &Url) -> Option<&Rc<Proxy>> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        proxy.as_ref().filter(|_| !self.direct.iter().any(|direct| direct.is_for(host, port)))
    }
}

/// An entry of `NO_PROXY`: which hosts go by none.
#[derive(Clone, Debug)]
struct Direct {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Hosts {
    All,
    /// A name, and all names below it.
    Named(String),
    /// The addresses whose first so many bits are those of this one.
    Net(IpAddr, u8),
}

impl Direct {
    fn parse(entry: &str) -> Option<Direct> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if let Some(hosts) = Hosts::numeric(&entry) {
            return Some(Direct { hosts, port: None });
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        let hosts = match name.trim_start_matches("*.").trim_start_matches('.') {
            "*" => Hosts::All,
            name => Hosts::numeric(name).unwrap_or_else(|| Hosts::Named(name.to_owned())),
        };
        Some(Direct { hosts, port })
    }

    fn is_for(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let host = host.trim_end_matches('.');
        match &self.hosts {
            Hosts::All => true,
            Hosts::Named(name) => host
                .strip_suffix(name.trim_end_matches('.'))
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            Hosts::Net(net, bits) => address(host).is_some_and(|host| same_net(*net, host, *bits)),
        }
    }
}

impl Hosts {
    /// An address, or a net of them.
    fn numeric(text: &str) -> Option<Hosts> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (address(ip)?, Some(bits.parse().ok()?)),
            None => (address(text)?, None),
        };
        let all = if ip.is_ipv4() { 32 } else { 128 };
        Some(Hosts::Net(ip, bits.unwrap_or(all).min(all)))
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn same_net(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let (one, other, width) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = one ^ other;
    differing.checked_shr(width - u32::from(bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Proxies::from_env(get).unwrap()
    }

    fn of(proxies: &Proxies, url: &str) -> String {
        let found = proxies.of(&Url::parse(url).unwrap());
        found.map_or("none".to_owned(), |proxy| proxy.to_string())
    }

    #[test]
    fn each_scheme_has_its_own_proxy_and_the_rest_has_that_for_all() {
        let some = proxies(&[("http_proxy", "http://one:3128"), ("ALL_PROXY", "two")]);
        assert_eq!(of(&some, "http://host/"), "one:3128");
        assert_eq!(of(&some, "https://host/"), "two:80");
        assert_eq!(of(&proxies(&[]), "http://host/"), "none");
        assert_eq!(of(&proxies(&[("HTTPS_PROXY", "three")]), "http://host/"), "none");
    }

    #[test]
    fn small_letters_go_before_capitals_and_nothing_is_no_proxy() {
        let some = proxies(&[("http_proxy", "small"), ("HTTP_PROXY", "capital")]);
        assert_eq!(of(&some, "http://host/"), "small:80");
        assert_eq!(of(&proxies(&[("HTTP_PROXY", " ")]), "http://host/"), "none");
    }

    #[test]
    fn a_header_of_a_cgi_request_is_no_proxy() {
        let some = proxies(&[("HTTP_PROXY", "evil"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(of(&some, "http://host/"), "none");
    }

    #[test]
    fn a_proxy_may_have_a_name_and_a_password_which_nobody_sees() {
        let some = proxies(&[("HTTP_PROXY", "http://me:secret@one:1")]);
        let url = Url::parse("http://host/").unwrap();
        let proxy = some.of(&url).unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic bWU6c2VjcmV0");
        assert!(!format!("{some:?} {:?}", proxy.authorization).contains("secret"));
    }

    #[test]
    fn what_is_no_proxy_of_http_is_an_error_that_keeps_the_password() {
        for url in
            ["socks5://host", "https://me:secret@host", "http://me:secret@", "http://h:99999"]
        {
            let error = Proxies::all(url).unwrap_err();
            assert!(matches!(error, FetchError::Invalid(_)), "{url}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn what_goes_by_none_is_named_by_hosts_domains_addresses_nets_and_ports() {
        let list =
            "localhost, .example.com,*.example.org,10.0.0.0/8,[::1],fd00::/8,host:81,1.2.3.4";
        let some = proxies(&[("ALL_PROXY", "p"), ("NO_PROXY", list)]);
        let direct = [
            "http://localhost/",
            "http://example.com/",
            "https://www.example.com/",
            "http://a.b.example.org/",
            "http://10.255.0.1/",
            "http://[::1]:8080/",
            "http://[fd12::1]/",
            "http://host:81/",
            "http://1.2.3.4/",
            "http://localhost./",
        ];
        for url in direct {
            assert_eq!(of(&some, url), "none", "{url}");
        }
        for url in ["http://notexample.com/", "http://11.0.0.1/", "http://[::2]/", "http://host/"] {
            assert_eq!(of(&some, url), "p:80", "{url}");
        }
        let all = proxies(&[("ALL_PROXY", "p"), ("NO_PROXY", "*")]);
        assert_eq!(of(&all, "http://host/"), "none");
    }
}
