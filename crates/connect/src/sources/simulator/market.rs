//! The markets and instruments of the simulator: hours, price steps, and a list of real names with invented starting prices.

use jiff::Timestamp;
use jiff::tz::TimeZone;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Market {
    Krx,
    Nasdaq,
}

/// Where a moment stands in a market's trading day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Session {
    Closed,
    /// The part of the session that has passed, 0 to 1.
    Open(f64),
}

const MINUTE_S: i64 = 60;

impl Market {
    pub const ALL: [Self; 2] = [Self::Krx, Self::Nasdaq];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Krx => "KRX",
            Self::Nasdaq => "NASDAQ",
        }
    }

    pub fn currency(self) -> &'static str {
        match self {
            Self::Krx => "KRW",
            Self::Nasdaq => "USD",
        }
    }

    pub fn time_zone(self) -> &'static str {
        match self {
            Self::Krx => "Asia/Seoul",
            Self::Nasdaq => "America/New_York",
        }
    }

    /// Regular hours, in seconds of the local day: 09:00 to 15:30 and 09:30 to 16:00.
    fn hours_s(self) -> (i64, i64) {
        match self {
            Self::Krx => (9 * 60 * MINUTE_S, (15 * 60 + 30) * MINUTE_S),
            Self::Nasdaq => ((9 * 60 + 30) * MINUTE_S, 16 * 60 * MINUTE_S),
        }
    }

    /// Monday to Friday; holidays are not known here.
    pub(crate) fn session(self, zone: &TimeZone, us: i64) -> Session {
        let Ok(at) = Timestamp::from_microsecond(us) else { return Session::Closed };
        let local_s = at.as_second() + i64::from(zone.to_offset(at).seconds());
        let (day, second) = (local_s.div_euclid(86_400), local_s.rem_euclid(86_400));
        // Day 0, 1970-01-01, was a Thursday; 0 is Sunday here.
        let weekday = (day + 4).rem_euclid(7);
        let (open, close) = self.hours_s();
        if (1..=5).contains(&weekday) && (open..close).contains(&second) {
            Session::Open((second - open) as f64 / (close - open) as f64)
        } else {
            Session::Closed
        }
    }

    /// The price step at a price, both in hundredths of the currency.
    /// KRX: the steps in force since 2023-01-25, Enforcement Rules of the KOSPI Market Business Regulation, "price quotation unit"
    /// (https://global.krx.co.kr, Trading > Tick size). NASDAQ: 0.01 USD from 1 USD on (Regulation NMS, rule 612).
    pub fn tick(self, price: i64) -> i64 {
        if self == Self::Nasdaq {
            return 1;
        }
        const STEPS: [(i64, i64); 6] = [(2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500)];
        let won = STEPS.iter().find(|(below, _)| price / 100 < *below).map_or(1_000, |(_, step)| *step);
        won * 100
    }

    /// The highest price on the grid that is not above `price`; at least one step.
    pub(crate) fn floor(self, price: i64) -> i64 {
        let tick = self.tick(price);
        (price - price.rem_euclid(tick)).max(tick)
    }

    /// The lowest price on the grid that is not below `price`.
    pub(crate) fn ceil(self, price: i64) -> i64 {
        let floor = self.floor(price);
        if floor >= price { floor } else { floor + self.tick(floor) }
    }

    /// What one usual trade is worth, in hundredths of the currency.
    pub(crate) fn usual_amount(self) -> i64 {
        match self {
            Self::Krx => 150_000_000,
            Self::Nasdaq => 150_000,
        }
    }
}

/// Something that is traded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instrument {
    pub symbol: &'static str,
    pub name: &'static str,
    pub market: Market,
    pub sector: &'static str,
    /// Where its walk begins and what it tends to, in hundredths of the currency. Invented, of a believable size.
    pub price: i64,
    /// Standard deviation of a year's return.
    pub volatility: f64,
    /// Its share of all trades, relative to the others.
    pub weight: f64,
}

const fn krx(symbol: &'static str, name: &'static str, sector: &'static str, won: i64, volatility: f64, weight: f64) -> Instrument {
    Instrument { symbol, name, market: Market::Krx, sector, price: won * 100, volatility, weight }
}

const fn nasdaq(symbol: &'static str, name: &'static str, sector: &'static str, cents: i64, volatility: f64, weight: f64) -> Instrument {
    Instrument { symbol, name, market: Market::Nasdaq, sector, price: cents, volatility, weight }
}

/// Every instrument the simulator knows.
pub const INSTRUMENTS: [Instrument; 32] = [
    krx("005930", "Samsung Electronics", "semiconductors", 71_500, 0.28, 10.0),
    krx("000660", "SK hynix", "semiconductors", 178_000, 0.42, 7.0),
    krx("042700", "Hanmi Semiconductor", "semiconductors", 98_000, 0.60, 3.0),
    krx("035420", "NAVER", "internet", 182_000, 0.34, 4.0),
    krx("035720", "Kakao", "internet", 41_500, 0.38, 4.0),
    krx("036570", "NCSOFT", "games", 205_000, 0.45, 1.5),
    krx("259960", "KRAFTON", "games", 298_000, 0.38, 1.5),
    krx("005380", "Hyundai Motor", "automotive", 236_000, 0.32, 4.0),
    krx("000270", "Kia", "automotive", 104_000, 0.33, 3.5),
    krx("012330", "Hyundai Mobis", "automotive", 241_000, 0.30, 1.5),
    krx("373220", "LG Energy Solution", "batteries", 386_000, 0.40, 3.0),
    krx("006400", "Samsung SDI", "batteries", 342_000, 0.44, 2.5),
    krx("051910", "LG Chem", "batteries", 318_000, 0.40, 2.0),
    krx("207940", "Samsung Biologics", "healthcare", 972_000, 0.28, 1.5),
    krx("068270", "Celltrion", "healthcare", 189_000, 0.36, 2.5),
    krx("105560", "KB Financial Group", "finance", 84_600, 0.28, 2.5),
    krx("055550", "Shinhan Financial Group", "finance", 55_900, 0.27, 2.5),
    krx("086790", "Hana Financial Group", "finance", 63_200, 0.29, 2.0),
    krx("005490", "POSCO Holdings", "materials", 352_000, 0.38, 2.5),
    krx("012450", "Hanwha Aerospace", "industrials", 312_000, 0.50, 2.5),
    nasdaq("AAPL", "Apple", "technology", 22_750, 0.26, 7.0),
    nasdaq("MSFT", "Microsoft", "technology", 41_820, 0.24, 5.0),
    nasdaq("NVDA", "NVIDIA", "semiconductors", 13_240, 0.48, 9.0),
    nasdaq("AMD", "Advanced Micro Devices", "semiconductors", 14_160, 0.46, 4.0),
    nasdaq("INTC", "Intel", "semiconductors", 3_460, 0.44, 3.0),
    nasdaq("AVGO", "Broadcom", "semiconductors", 17_380, 0.40, 2.5),
    nasdaq("TSLA", "Tesla", "automotive", 24_890, 0.56, 8.0),
    nasdaq("AMZN", "Amazon.com", "internet", 18_930, 0.32, 5.0),
    nasdaq("GOOGL", "Alphabet", "internet", 16_670, 0.29, 4.0),
    nasdaq("META", "Meta Platforms", "internet", 56_310, 0.34, 3.5),
    nasdaq("NFLX", "Netflix", "internet", 70_540, 0.36, 1.5),
    nasdaq("COST", "Costco Wholesale", "consumer", 88_720, 0.22, 1.0),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn price_steps() {
        let step = |won: i64| Market::Krx.tick(won * 100) / 100;
        assert_eq!([1_999, 2_000, 4_999, 5_000, 19_999, 20_000].map(step), [1, 5, 5, 10, 10, 50]);
        assert_eq!([49_999, 50_000, 199_999, 200_000, 499_999, 500_000].map(step), [50, 100, 100, 500, 500, 1_000]);
        assert_eq!(Market::Krx.floor(7_154_321), 7_150_000);
        assert_eq!(Market::Krx.ceil(7_154_321), 7_160_000);
        assert_eq!((Market::Nasdaq.floor(12_345), Market::Nasdaq.ceil(12_345)), (12_345, 12_345));
    }

    #[test]
    fn sessions() {
        let check = |market: Market, at: &str, want: Session| {
            let zone = TimeZone::get(market.time_zone()).unwrap();
            assert_eq!(market.session(&zone, at.parse::<Timestamp>().unwrap().as_microsecond()), want, "{at}");
        };
        check(Market::Krx, "2026-03-02T00:00:00Z", Session::Open(0.0));
        check(Market::Krx, "2026-03-01T23:59:59Z", Session::Closed);
        check(Market::Krx, "2026-03-02T06:30:00Z", Session::Closed);
        check(Market::Krx, "2026-03-01T00:00:00Z", Session::Closed);
        // New York changes its clocks on 2026-03-08.
        check(Market::Nasdaq, "2026-03-06T14:30:00Z", Session::Open(0.0));
        check(Market::Nasdaq, "2026-03-09T13:30:00Z", Session::Open(0.0));
        check(Market::Nasdaq, "2026-03-09T16:45:00Z", Session::Open(0.5));
    }
}
