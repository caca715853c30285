declare module 'asciichart' {
  interface Options {
    height?: number;
    min?: number;
    max?: number;
    offset?: number;
    padding?: string;
    colors?: (string | undefined)[];
    format?: (value: number, index: number) => string;
  }
  export function plot(series: number[] | number[][], options?: Options): string;
  const chart: { plot: typeof plot };
  export default chart;
}
