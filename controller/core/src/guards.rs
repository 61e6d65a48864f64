//! Guards: what an app file asks of requests, in the form that a route has.

use appbase_core::ProcessName;
use appbase_core::v1::{Basic, Cors, Forward, Guard, PasswordHash, Rate};

use crate::app_file::{AppFileError, size};
use crate::v1::app_file::{BasicFile, CorsFile, ForwardFile, GuardFile, RateFile};

/// `key`: where it stands in the file.
pub(crate) fn guard(key: &str, file: &GuardFile) -> Result<Guard, AppFileError> {
    let size = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| size(&format!("{key}.{name}"), text)).transpose()
    };
    Ok(Guard {
        networks: file.networks.clone(),
        request_bytes_max: size("request_max", &file.request_max)?,
        response_bytes_max: size("response_max", &file.response_max)?,
        rate: file.rate.as_ref().map(rate),
        cors: file.cors.as_ref().map(cors),
        basic: file.basic.as_ref().map(basic),
        forward: file.forward.as_ref().map(forward),
    })
}

fn rate(file: &RateFile) -> Rate {
    let RateFile { requests, seconds, burst, of } = *file;
    Rate { requests, seconds: seconds.unwrap_or_else(Rate::second), burst, of }
}

fn basic(file: &BasicFile) -> Basic {
    let users = file.users.iter().map(|(name, hash)| (name.clone(), PasswordHash::new(hash)));
    Basic { realm: file.realm.clone().unwrap_or_else(Basic::usual_realm), users: users.collect() }
}

fn forward(file: &ForwardFile) -> Forward {
    let ForwardFile { app, process, path, send, copy } = file.clone();
    Forward { app, process: process.unwrap_or_else(ProcessName::default_name), path, send, copy }
}

fn cors(file: &CorsFile) -> Cors {
    let CorsFile { origins, methods, headers, expose, credentials, seconds } = file.clone();
    Cors { origins, methods, headers, expose, credentials, seconds: seconds.unwrap_or_else(Cors::remembered) }
}
