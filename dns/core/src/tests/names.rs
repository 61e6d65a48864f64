//! Which names exist, in which view, with what.

use super::{HOST, PRODUCTION, STAGING, ask, ask_message, file, question, table, table_of};

fn check(cases: &[(&str, &str, &str, &str)]) {
    let table = table();
    for (source, name, rtype, expect) in cases {
        assert_eq!(ask(&table, source, name, rtype), *expect, "{name} {rtype} asked by {source}");
    }
}

const NODATA: &str = "NOERROR | -SOA platform.";
const NXDOMAIN: &str = "NXDOMAIN | -SOA platform.";

#[test]
fn a_routed_app_answers_the_balancer_of_the_askers_view() {
    check(&[
        (HOST, "hello.platform", "A", "NOERROR | A 127.0.0.1"),
        (HOST, "hello.platform", "AAAA", "NOERROR | AAAA ::1"),
        (HOST, "hello.production.platform", "A", "NOERROR | A 127.0.0.1"),
        (HOST, "hello.staging.platform", "A", "NOERROR | A 127.0.0.1"),
        (PRODUCTION, "hello.platform", "A", "NOERROR | A 10.210.0.2"),
        (PRODUCTION, "hello.platform", "AAAA", NODATA),
        (STAGING, "hello.staging.platform", "A", "NOERROR | A 10.210.16.2"),
        ("::ffff:10.210.17.1", "hello.staging.platform", "A", "NOERROR | A 10.210.16.2"),
    ]);
}

#[test]
fn an_app_without_a_route_answers_its_active_instances() {
    check(&[
        (PRODUCTION, "queue.platform", "A", "NOERROR | A 10.210.1.9"),
        (PRODUCTION, "queue.platform", "AAAA", "NOERROR | AAAA fd00::9"),
        (PRODUCTION, "empty.platform", "A", NODATA),
        (PRODUCTION, "empty.production.platform", "AAAA", NODATA),
    ]);
}

#[test]
fn versions_and_instances_have_names() {
    check(&[
        (HOST, "v1.hello.platform", "A", "NOERROR | A 10.210.1.1"),
        (HOST, "v2.hello.platform", "A", "NOERROR | A 10.210.1.2 | A 10.210.1.3"),
        (HOST, "v2.hello.staging.platform", "A", "NOERROR | A 10.210.17.1"),
        (HOST, "v3.hello.platform", "A", NXDOMAIN),
        (HOST, "2.web.r7.hello.platform", "A", "NOERROR | A 10.210.1.3"),
        (HOST, "1.web.r6.hello.production.platform", "A", "NOERROR | A 10.210.1.1"),
        (HOST, "3.web.r7.hello.platform", "A", NXDOMAIN),
    ]);
    let label = appbase_core::Version::parse("2.0").expect("a version").label();
    check(&[(HOST, &format!("v{label}.queue.platform"), "A", "NOERROR | A 10.210.1.10")]);
}

#[test]
fn names_that_only_have_names_below_them_exist() {
    check(&[
        (HOST, "web.r7.hello.platform", "A", NODATA),
        (HOST, "r7.hello.platform", "A", NODATA),
        (HOST, "_tcp.hello.platform", "SRV", NODATA),
        (HOST, "production.platform", "A", NODATA),
        (HOST, "core.platform", "A", NODATA),
        (HOST, "r8.hello.platform", "A", NXDOMAIN),
        (HOST, "nothing.platform", "A", NXDOMAIN),
        (HOST, "a.b.c.nothing.platform", "A", NXDOMAIN),
        (HOST, "below.1.web.r7.hello.platform", "A", NXDOMAIN),
    ]);
}

#[test]
fn services_name_instances_with_their_addresses_beside() {
    let web = "NOERROR | SRV 0 1 8080 1.web.r7.hello.platform. | SRV 0 1 8081 2.web.r7.hello.platform. \
               | +A 1.web.r7.hello.platform. 10.210.1.2 | +A 2.web.r7.hello.platform. 10.210.1.3";
    check(&[
        (HOST, "_web._tcp.hello.platform", "SRV", web),
        (HOST, "_http._tcp.hello.platform", "SRV", web),
        (HOST, "_http._tcp.queue.platform", "SRV", NXDOMAIN),
        (HOST, "_web._tcp.hello.platform", "A", NODATA),
        (
            PRODUCTION,
            "_broker._tcp.queue.production.platform",
            "SRV",
            "NOERROR | SRV 0 1 5672 1.broker.r1.queue.production.platform. \
             | SRV 0 1 5672 2.broker.r1.queue.production.platform. \
             | +A 1.broker.r1.queue.production.platform. 10.210.1.9 \
             | +AAAA 2.broker.r1.queue.production.platform. fd00::9",
        ),
    ]);
}

#[test]
fn environments_do_not_see_one_another() {
    check(&[
        (STAGING, "hello.platform", "A", NXDOMAIN),
        (STAGING, "hello.production.platform", "A", NXDOMAIN),
        (STAGING, "production.platform", "A", NXDOMAIN),
        (STAGING, "queue.platform", "A", NXDOMAIN),
        (STAGING, "east-1.core.platform", "A", NXDOMAIN),
        (STAGING, "lb.platform", "A", "NOERROR | A 10.210.16.2"),
        (STAGING, "controller.platform", "A", NXDOMAIN),
        (PRODUCTION, "hello.staging.platform", "A", NXDOMAIN),
        (HOST, "east-1.core.platform", "A", "NOERROR | A 192.0.2.7"),
        (STAGING, "2.1.210.10.in-addr.arpa", "PTR", "NXDOMAIN | -SOA 10.in-addr.arpa."),
    ]);
}

#[test]
fn addresses_have_names_and_private_ranges_end_here() {
    let v6 = crate::Name::reverse("fd00::9".parse().expect("an address")).to_string();
    check(&[
        (HOST, "3.1.210.10.in-addr.arpa", "PTR", "NOERROR | PTR 2.web.r7.hello.production.platform."),
        (HOST, &v6, "PTR", "NOERROR | PTR 2.broker.r1.queue.production.platform."),
        (HOST, "3.1.210.10.in-addr.arpa", "A", "NOERROR | -SOA 10.in-addr.arpa."),
        (HOST, "1.210.10.in-addr.arpa", "PTR", "NOERROR | -SOA 10.in-addr.arpa."),
        (HOST, "99.1.210.10.in-addr.arpa", "PTR", "NXDOMAIN | -SOA 10.in-addr.arpa."),
        (HOST, "1.1.168.192.in-addr.arpa", "PTR", "NXDOMAIN | -SOA 168.192.in-addr.arpa."),
        (HOST, "168.192.in-addr.arpa", "SOA", "NOERROR | SOA 168.192.in-addr.arpa."),
        (HOST, "printer.local", "A", "NXDOMAIN | -SOA local."),
    ]);
}

#[test]
fn the_apex_and_the_scheme_are_there() {
    check(&[
        (HOST, "platform", "SOA", "NOERROR | SOA platform."),
        (HOST, "platform", "NS", "NOERROR | NS dns.platform. | +A dns.platform. 127.0.0.1"),
        (HOST, "platform", "A", NODATA),
        (HOST, "dns-version.platform", "TXT", "NOERROR | TXT 1"),
    ]);
}

#[test]
fn any_gets_one_set_and_negative_answers_live_as_long_as_others() {
    let table = table();
    let any = ask_message(&table, HOST, &question("lb.platform", "ANY"));
    assert_eq!(any.answers.len(), 1, "one of A and AAAA: {any:?}");
    for (name, section) in [("lb.platform", 0), ("nothing.platform", 1)] {
        let reply = ask_message(&table, HOST, &question(name, "A"));
        let record = [&reply.answers, &reply.authorities][section].first().expect("a record");
        assert_eq!(record.ttl, 5, "4001 ms round up");
    }
    let soa = ask_message(&table, HOST, &question("nothing.platform", "A"));
    assert!(soa.authorities[0].data.to_string().ends_with(" 5"), "{}", soa.authorities[0].data);
}

#[test]
fn the_serial_is_the_tables_number() {
    let mut table = table();
    table.set_serial(118);
    let reply = ask_message(&table, HOST, &question("platform", "SOA"));
    let data = reply.answers[0].data.to_string();
    assert!(data.starts_with("dns.platform. hostmaster.platform. 118 "), "{data}");
}

#[test]
fn an_authority_is_answered_below_the_domain_and_at_a_name_that_is_led_here() {
    let mut file = file();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    file.apps[0].texts = [
        ("_acme-challenge.hello.platform".to_owned(), texts(&["one"])),
        ("_acme-challenge.Shop.example".to_owned(), texts(&["two", "three"])),
    ]
    .into();
    file.apps[3].texts = [("_acme-challenge.shop.example".to_owned(), texts(&["four", "two"]))].into();
    let table = table_of(file);
    let check = |source: &str, name: &str, rtype: &str, expect: &str| {
        assert_eq!(ask(&table, source, name, rtype), expect, "{name} {rtype} asked by {source}");
    };
    check(HOST, "_acme-challenge.hello.platform", "TXT", "NOERROR | TXT one");
    check(HOST, "_acme-challenge.shop.example", "TXT", "NOERROR | TXT two | TXT four | TXT three");
    check(PRODUCTION, "_acme-challenge.shop.example", "TXT", "NOERROR | TXT two | TXT three");
    // It is a zone of its own to whoever was sent here for it.
    check(HOST, "_acme-challenge.shop.example", "A", "NOERROR | -SOA _acme-challenge.shop.example.");
    check(HOST, "_acme-challenge.shop.example", "SOA", "NOERROR | SOA _acme-challenge.shop.example.");
    check(STAGING, "shop.example", "A", "REFUSED");
}
