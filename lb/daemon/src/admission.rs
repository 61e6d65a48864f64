//! Admission: who a request is from, where its route asks for that. The app is told by lines of lb's own, and gets neither
//! the password nor what a client itself says in their place.
//!
//! What a route asks beside this is the entrance's: it comes first, because it costs nothing.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use appbase_core::v1::Basic;
use lb_core::basic::{self, Credentials};
use lb_core::rule::Rule;

use crate::balancer::Balancer;
use crate::compose::is_twin;
use crate::entrance::{Asked, Entered};
use crate::inquiry;
use crate::listen::Data;
use crate::proofs::{Busy, TRIES};
use crate::refusal::Refusal;
use crate::request::RequestContext;

/// The name that was proven.
const USER: &str = "X-Forwarded-User";

/// A request was let in.
#[derive(Debug)]
pub(crate) struct Admission {
    /// By this rule, or one that asks the same.
    rule: Arc<Rule>,
    /// What the app is told of it.
    pub(crate) lines: Vec<(String, Vec<u8>)>,
}

impl Admission {
    pub(crate) fn is_of(&self, rule: &Arc<Rule>) -> bool {
        let asks_the_same = || self.rule.id == rule.id && self.rule.route.guard == rule.route.guard;
        Arc::ptr_eq(&self.rule, rule) || asks_the_same()
    }

    /// Whether this line of the client's own ends at lb.
    pub(crate) fn takes_out(&self, name: &str) -> bool {
        let guard = &self.rule.route.guard;
        let copied = guard.forward.iter().flat_map(|forward| &forward.copy);
        (guard.basic.is_some() && is_twin(name, basic::FIELD)) || copied.into_iter().any(|copied| is_twin(name, copied))
    }
}

/// Finds out who a request is from where that is asked, then finds, chooses and enters.
pub(crate) async fn enter(data: &Rc<Data>, ctx: &mut RequestContext, asked: &Asked<'_>) -> Result<(), Refusal> {
    loop {
        match data.entrance.enter(ctx, asked).await? {
            Entered::Inside => return Ok(()),
            // A table that changed meanwhile may ask something else; then it is asked.
            Entered::Asks(rule) => {
                ctx.admission = Some(admit(data, ctx, asked, rule).await?);
            }
        }
    }
}

type Admitting<'a> = Pin<Box<dyn Future<Output = Result<Box<Admission>, Refusal>> + 'a>>;

/// In a box: an inquiry is an exchange within this one.
fn admit<'a>(data: &'a Rc<Data>, ctx: &'a RequestContext, asked: &'a Asked<'_>, rule: Arc<Rule>) -> Admitting<'a> {
    Box::pin(async move {
        let mut lines = Vec::new();
        if let Some(basic) = &rule.route.guard.basic {
            let user = signed_in(&data.balancer, ctx, asked, &rule, basic).await?;
            lines.push((USER.to_owned(), user.into_bytes()));
        }
        if let Some(forward) = &rule.route.guard.forward {
            lines.extend(inquiry::ask(data, ctx, asked, &rule, forward).await?);
        }
        Ok(Box::new(Admission { rule, lines }))
    })
}

/// The name that goes with the password.
async fn signed_in(
    balancer: &Balancer,
    ctx: &RequestContext,
    asked: &Asked<'_>,
    rule: &Rule,
    basic: &Basic,
) -> Result<String, Refusal> {
    let wanted = || Refusal::sign_in(&basic.realm);
    let credentials = Credentials::of(asked.fields).ok_or_else(wanted)?;
    let now = balancer.clock.elapsed();
    if balancer.proofs.knows(basic, &credentials, now) {
        return Ok(credentials.user);
    }
    // Counted apart from the route's own rate.
    let (tries, client) = (!rule.id, ctx.connection.client);
    let may_try = || balancer.rates.pass(tries, &TRIES, client, balancer.clock.elapsed());
    match balancer.proofs.check(basic, &credentials, now, may_try).await {
        Ok(Ok(true)) => {
            balancer.rates.give_back(tries, &TRIES, client);
            Ok(credentials.user)
        }
        Ok(Ok(false)) => Err(wanted()),
        Ok(Err(wait)) => Err(Refusal::too_many_tries(wait)),
        Err(Busy) => Err(Refusal::sign_in_busy()),
    }
}
