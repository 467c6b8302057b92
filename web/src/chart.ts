// The candle chart. Times are shifted to Seoul, because the library draws in UTC and knows no zones.

import {
  CandlestickSeries,
  ColorType,
  createChart,
  createSeriesMarkers,
  CrosshairMode,
  HistogramSeries,
  TickMarkType,
  type IChartApi,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  type SeriesMarker,
  type Time,
  type UTCTimestamp,
} from 'lightweight-charts';
import { windowStart, type Candle } from './candle';
import { decimalsOf, grouped, priceDigits } from './format';
import type { Palette } from './theme';

const KST_OFFSET_S = 9 * 3600;
const BARS_SHOWN = 90;
const BARS_SHOWN_NARROW = 40;

export interface Mark {
  ms: number;
  isSevere: boolean;
}

export class Chart {
  private readonly chart: IChartApi;
  private readonly candles: ISeriesApi<'Candlestick'>;
  private readonly volume: ISeriesApi<'Histogram'>;
  private readonly marks: ISeriesMarkersPluginApi<Time>;
  private currency: string | null = null;
  private decimals = -1;
  private firstTime = Infinity;
  private lastTime = -Infinity;
  private byTime = new Map<number, Candle>();

  constructor(
    private readonly box: HTMLElement,
    private colours: Palette,
    private readonly onPoint: (candle: Candle | null) => void,
  ) {
    this.chart = createChart(box, {
      autoSize: true,
      // The logo brings a <style> element, which our content security policy refuses; the page's footer carries the attribution.
      layout: { attributionLogo: false, fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.08, bottom: 0.26 } },
      timeScale: {
        borderVisible: false,
        timeVisible: true,
        rightOffset: 4,
        tickMarkFormatter: (time: Time, kind: TickMarkType) => tickMark(time as number, kind),
      },
      localization: { timeFormatter: (time: Time) => fullTime(time as number), priceFormatter: (p: number) => this.priceText(p) },
    });
    this.candles = this.chart.addSeries(CandlestickSeries, { borderVisible: false, priceLineStyle: 2 });
    this.volume = this.chart.addSeries(HistogramSeries, {
      priceScaleId: 'volume',
      priceFormat: { type: 'volume' },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.chart.priceScale('volume').applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.marks = createSeriesMarkers(this.candles, []);
    this.chart.subscribeCrosshairMove((move) => this.onPoint(move.time === undefined ? null : (this.byTime.get(move.time as number) ?? null)));
    this.recolour(colours);
  }

  recolour(colours: Palette): void {
    this.colours = colours;
    const { ink, muted, line, up, down, font } = colours;
    this.chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: 'transparent' }, textColor: muted, fontFamily: font },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: { vertLine: { color: muted, labelBackgroundColor: ink }, horzLine: { color: muted, labelBackgroundColor: ink } },
    });
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.volume.setData([...this.byTime.values()].map((c) => this.bar(c)));
  }

  /** Another symbol or interval: everything is drawn anew and the newest candles come into view. */
  show(candles: readonly Candle[], seconds: number, currency: string | null): void {
    this.currency = currency;
    this.decimals = -1;
    this.chart.timeScale().applyOptions({ secondsVisible: seconds < 60 });
    this.redraw(candles);
    const most = this.box.clientWidth < 560 ? BARS_SHOWN_NARROW : BARS_SHOWN;
    const shown = Math.min(most, Math.max(candles.length, BARS_SHOWN_NARROW));
    this.chart.timeScale().setVisibleLogicalRange({ from: candles.length - shown, to: candles.length + 3 });
    this.chart.priceScale('right').applyOptions({ autoScale: true });
  }

  /** The same chart with a corrected past; the view stays where the reader put it. */
  redraw(candles: readonly Candle[]): void {
    this.byTime = new Map(candles.map((c) => [shifted(c.time), c]));
    this.firstTime = candles[0] ? shifted(candles[0].time) : Infinity;
    const last = candles[candles.length - 1];
    this.lastTime = last ? shifted(last.time) : -Infinity;
    for (const candle of candles.slice(-50)) this.learnDecimals(candle);
    this.candles.setData(candles.map((c) => ({ time: shifted(c.time), open: c.open, high: c.high, low: c.low, close: c.close })));
    this.volume.setData(candles.map((c) => this.bar(c)));
  }

  /** A candle changed or began. False when it lies between others and is not drawn yet: then all must be redrawn. */
  update(candle: Candle): boolean {
    const time = shifted(candle.time);
    const isPast = time < this.lastTime;
    if (isPast && !this.byTime.has(time)) return false;
    this.byTime.set(time, candle);
    this.firstTime = Math.min(this.firstTime, time);
    this.lastTime = Math.max(this.lastTime, time);
    this.learnDecimals(candle);
    this.candles.update({ time, open: candle.open, high: candle.high, low: candle.low, close: candle.close }, isPast);
    this.volume.update(this.bar(candle), isPast);
    return true;
  }

  /** One mark per candle at most, of the gravest alert in it. */
  mark(marks: readonly Mark[], seconds: number): void {
    const byWindow = new Map<number, Mark>();
    for (const m of marks) {
      const time = windowStart(m.ms, seconds);
      if (m.isSevere || !byWindow.has(time)) byWindow.set(time, m);
    }
    const shown: SeriesMarker<Time>[] = [...byWindow]
      .map(([time, m]): SeriesMarker<Time> => ({
        time: shifted(time),
        position: 'aboveBar',
        shape: 'circle',
        size: m.isSevere ? 0.8 : 0.5,
        color: m.isSevere ? this.colours.high : this.colours.muted,
      }))
      .filter((m) => (m.time as number) >= this.firstTime)
      .sort((a, b) => (a.time as number) - (b.time as number));
    this.marks.setMarkers(shown);
  }

  /** The scale shows as many decimals as the prices have, so that it neither rounds nor pads. */
  private learnDecimals(candle: Candle): void {
    const needed = Math.max(decimalsOf(candle.close, this.currency), decimalsOf(candle.open, this.currency));
    if (needed <= this.decimals) return;
    this.decimals = needed;
    this.candles.applyOptions({ priceFormat: { type: 'custom', minMove: 10 ** -needed, formatter: (p: number) => this.priceText(p) } });
  }

  private priceText(value: number): string {
    return this.decimals < 0 ? priceDigits(value, this.currency) : grouped(Number(value.toFixed(this.decimals)), this.decimals);
  }

  private bar(candle: Candle): { time: UTCTimestamp; value: number; color: string } {
    const color = candle.close >= candle.open ? this.colours.upSoft : this.colours.downSoft;
    return { time: shifted(candle.time), value: candle.volume, color };
  }
}

function shifted(seconds: number): UTCTimestamp {
  return (seconds + KST_OFFSET_S) as UTCTimestamp;
}

function tickMark(time: number, kind: TickMarkType): string {
  const text = new Date(time * 1000).toISOString();
  if (kind === TickMarkType.Year) return text.slice(0, 4);
  if (kind === TickMarkType.Month) return text.slice(0, 7);
  if (kind === TickMarkType.DayOfMonth) return text.slice(5, 10);
  return kind === TickMarkType.TimeWithSeconds ? text.slice(11, 19) : text.slice(11, 16);
}

function fullTime(time: number): string {
  return `${new Date(time * 1000).toISOString().slice(0, 19).replace('T', ' ')} KST`;
}
