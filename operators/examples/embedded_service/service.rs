//! The service: accounts whose balances are the state of a job that runs inside this process.

use std::{collections::HashMap, error::Error, thread};

use thalweg::{handle::Closed, prelude::*};

/// Plain threads that push, and as many tokio tasks.
const PRODUCERS: u64 = 3;
/// Accounts that they push to.
const ACCOUNTS: u64 = 100;

/// Money for an account.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Deposit {
    /// Which account.
    pub account: u64,
    /// How much.
    pub cents: i64,
}

/// What an account holds after a deposit.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Balance {
    /// Which account.
    pub account: u64,
    /// How much it holds.
    pub cents: i64,
}

/// What went in and came out.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Deposits pushed.
    pub pushed: u64,
    /// Balances received.
    pub received: u64,
}

/// Starts the job; answers the way in, the way out, and the job itself. Both ways hold at most `capacity` records: a full
/// way in holds the callers back, a full way out holds the job back.
fn start(
    parallelism: u32,
    capacity: usize,
) -> Result<(InputHandle<Deposit>, ResultReceiver<Balance>, JobHandle), thalweg::Error> {
    let env = Environment::new();
    env.job_name("accounts").parallelism(parallelism);
    // A service shares its cores with the rest of the program, so its slots sleep when there is nothing to do.
    env.configure_runtime(|config| config.oversubscribe = true);
    let (deposits, stream) = env.from_handle::<Deposit>(capacity);
    let (sink, balances) = results::<Balance>(capacity);
    stream
        .key_by(|deposit| deposit.account)
        .aggregate(Sum(|deposit: DepositView| deposit.cents), |account, cents| Balance { account, cents })
        .sink(sink);
    Ok((deposits, balances, env.execute_async()?))
}

/// Pushes `per_producer` deposits from each of several threads and tokio tasks, takes the balances, shuts down, and checks
/// that nothing was lost.
///
/// # Errors
/// The job fails, or something was lost.
pub fn run(parallelism: u32, capacity: usize, per_producer: u64) -> Result<Summary, Box<dyn Error>> {
    let (deposits, balances, job) = start(parallelism, capacity)?;

    // One thread takes what comes out, until the job has ended and all has been taken.
    let receiver = thread::spawn(move || {
        let (mut received, mut last) = (0, HashMap::new());
        for balance in &balances {
            received += 1;
            last.insert(balance.account, balance.cents);
        }
        (received, last)
    });

    // Plain threads wait in `push` while the way in is full.
    let threads: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let deposits = deposits.clone();
            thread::spawn(move || (0..per_producer).try_for_each(|n| deposits.push(deposit(producer, n)).map(drop)))
        })
        .collect();

    // Tokio tasks wait in `push_async`, and leave their thread to others meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let tasks = (PRODUCERS..2 * PRODUCERS).map(|producer| {
        let deposits = deposits.clone();
        runtime.spawn(async move {
            for n in 0..per_producer {
                deposits.push_async(deposit(producer, n)).await?;
            }
            Ok::<(), Closed<Deposit>>(())
        })
    });
    let mut pushes = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        pushes.push(runtime.block_on(task)?);
    }
    for thread in threads {
        pushes.push(thread.join().map_err(|_| "a producer panicked")?);
    }

    // The input ends with its last handle; the job then works off what it has, and ends too.
    drop(deposits);
    // If the job has failed, this says why; that pushes were refused then only follows from it.
    job.wait()?;
    pushes.into_iter().collect::<Result<(), _>>()?;
    let (received, last) = receiver.join().map_err(|_| "the receiver panicked")?;

    let mut expected = HashMap::new();
    for (producer, n) in (0..2 * PRODUCERS).flat_map(|producer| (0..per_producer).map(move |n| (producer, n))) {
        let Deposit { account, cents } = deposit(producer, n);
        *expected.entry(account).or_insert(0) += cents;
    }
    let pushed = 2 * PRODUCERS * per_producer;
    if received != pushed || last != expected {
        return Err(format!("{pushed} deposits were pushed, but {received} balances came back, or wrong ones").into());
    }
    Ok(Summary { pushed, received })
}

fn deposit(producer: u64, n: u64) -> Deposit {
    Deposit { account: (producer * 31 + n) % ACCOUNTS, cents: (n % 1_000) as i64 + 1 }
}
