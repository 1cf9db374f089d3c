//! `RestOptions`: where a process answers requests over HTTP.

use crate::config::{Configuration, keys};

/// Where the REST interface listens, as far as somebody set it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestOptions {
    /// The port, 0 for a free one; `None`: nobody set one, and a job that runs by itself serves nothing.
    pub port: Option<u16>,
    /// Host name or address of the interface; `None`: this machine only.
    pub bind_address: Option<String>,
}

impl RestOptions {
    /// Takes over what somebody set; the rest stays as it is.
    pub fn update(&mut self, config: &Configuration) {
        config.when_set(&keys::REST_PORT, |port| self.port = Some(port));
        config.when_set(&keys::REST_BIND_ADDRESS, |address| self.bind_address = Some(address));
    }
}

impl From<&Configuration> for RestOptions {
    fn from(config: &Configuration) -> Self {
        let mut options = Self::default();
        options.update(config);
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(definition: &str) -> RestOptions {
        let builder = Configuration::builder().define(definition).unwrap();
        let (configuration, warnings) = builder.build().unwrap();
        assert!(warnings.iter().all(|warning| warning.to_string().contains("web.")), "{warnings:?}");
        RestOptions::from(&configuration)
    }

    #[test]
    fn when_keys_are_set_then_the_options_have_them() {
        assert_eq!(options("parallelism.default=1"), RestOptions::default());
        assert_eq!(options("rest.port=0").port, Some(0));
        assert_eq!(options("web.port=8099").port, Some(8099));
        assert_eq!(options("rest.bind-address=0.0.0.0").bind_address.as_deref(), Some("0.0.0.0"));
        let error = Configuration::builder().define("rest.port=65536").and_then(|builder| builder.build()).unwrap_err();
        assert!(error.to_string().contains("65535"), "{error}");
    }
}
