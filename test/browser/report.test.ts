/** Reports in a real Chromium, opened as files: nothing is fetched, nothing goes wrong, everybody can read them. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, type BrowserContextOptions, type Page, chromium } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { renderHtml } from '../../lib/report/html/document.js';
import { hostileResult, measuredResult, predictedResult } from '../results.js';

const EXECUTABLE = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const IN_CI = process.env['CI'] === 'true';

if (EXECUTABLE === undefined && !IN_CI) console.warn('skipped: there is no Chromium here (apt-get install chromium)');

let browser: Browser;
let folder: string;
const files = new Map<string, string>();

/** What a page asked for beside itself, and what it complained of. */
interface Opened {
  page: Page;
  requests: string[];
  complaints: string[];
}

async function open(name: string, options: BrowserContextOptions = {}): Promise<Opened> {
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 }, ...options });
  const opened: Opened = { page, requests: [], complaints: [] };
  const address = pathToFileURL(files.get(name) ?? '').href;
  page.on('request', (request) => {
    if (request.url() !== address && !request.url().startsWith('data:image/png')) opened.requests.push(request.url());
  });
  page.on('console', (message) => opened.complaints.push(message.text()));
  page.on('pageerror', (error) => opened.complaints.push(error.message));
  await page.goto(address);
  return opened;
}

async function widthOf(page: Page): Promise<number> {
  return page.evaluate<number>('document.documentElement.scrollWidth');
}

describe.skipIf(EXECUTABLE === undefined && !IN_CI)('a report in Chromium', () => {
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: EXECUTABLE ?? 'chromium',
      // Root, as CI is, has no sandbox.
      args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
    });
    folder = mkdtempSync(join(tmpdir(), 'cowlab-browser-'));
    const results = {
      one: [await measuredResult()],
      predicted: [await predictedResult({ pattern: 'random' })],
      several: [await measuredResult(), await measuredResult(undefined, { children: '1' })],
      hostile: [await hostileResult()],
    };
    for (const [name, those] of Object.entries(results)) {
      files.set(name, join(folder, `${name}.html`));
      writeFileSync(join(folder, `${name}.html`), renderHtml(those));
    }
  });
  afterAll(async () => {
    await browser.close();
    rmSync(folder, { recursive: true });
  });

  const names = ['one', 'predicted', 'several', 'hostile'];
  test.each(
    names.flatMap((name) =>
      [360, 1440].flatMap((width) => (['light', 'dark'] as const).map((scheme) => ({ name, width, scheme }))),
    ),
  )(
    '$name, $width px, $scheme: no request, no complaint, nothing beside the screen',
    async ({ name, width, scheme }) => {
      const { page, requests, complaints } = await open(name, {
        viewport: { width, height: 800 },
        colorScheme: scheme,
      });
      expect(requests).toEqual([]);
      expect(complaints).toEqual([]);
      expect(await widthOf(page)).toBe(width);
      await page.close();
    },
  );

  test.each([
    { name: 'one', scheme: 'light' },
    { name: 'several', scheme: 'dark' },
    { name: 'predicted', scheme: 'dark' },
    { name: 'hostile', scheme: 'light' },
  ] as const)('axe finds nothing in $name, $scheme', async ({ name, scheme }) => {
    // axe is a script, and the policy of the page forbids all but its own.
    const { page } = await open(name, { bypassCSP: true, colorScheme: scheme });
    await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    await page.addScriptTag({ path: AXE });
    const found = await page.evaluate<string[]>(
      'axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ": " + nodes[0].html))',
    );
    expect(found).toEqual([]);
    await page.close();
  });

  test('what a result says is never run, not even by a click on its source', async () => {
    const { page } = await open('hostile');
    await page.locator('cite').first().click();
    expect(await page.title()).not.toBe('harmed');
    expect(await page.locator('a[href^="javascript"]').count()).toBe(0);
    await page.close();
  });

  test('without scripts every step of a page map is there to read', async () => {
    const { page, complaints } = await open('one', { javaScriptEnabled: false });
    const steps = page.locator('.step');
    expect(await steps.count()).toBe(4);
    for (const step of await steps.all()) expect(await step.isVisible()).toBe(true);
    expect(complaints).toEqual([]);
    await page.close();
  });

  test('on paper every step is there too, and the table, and no control', async () => {
    const { page } = await open('one');
    await page.emulateMedia({ media: 'print' });
    for (const step of await page.locator('.step').all()) expect(await step.isVisible()).toBe(true);
    expect(await page.locator('.control').first().isVisible()).toBe(false);
    expect(await page.locator('.pagemap td').last().isVisible()).toBe(true);
    await page.close();
  });

  test('the slider shows one step after the other, by keyboard too', async () => {
    const { page } = await open('one');
    const visible = page.locator('.step:visible h5');
    const slider = page.locator('input[type=range]');
    await slider.focus();
    await page.keyboard.press('Home');
    expect(await visible.allTextContents()).toEqual(['1 of 4: written']);
    await page.keyboard.press('ArrowRight');
    expect(await visible.allTextContents()).toEqual(['2 of 4: forked']);
    expect(await slider.getAttribute('aria-valuetext')).toBe('2 of 4: forked');
    await page.locator('.control button').click();
    expect(await visible.count()).toBe(4);
    await page.close();
  });

  test('the cell under the pointer is told exactly', async () => {
    const { page } = await open('one');
    await page.locator('input[type=range]').focus();
    await page.keyboard.press('Home');
    // The second cell of the second row: of 2 pages each, 32 in a row.
    await page
      .locator('.step:visible .map img')
      .first()
      .hover({ position: { x: 12, y: 12 } });
    expect(await page.locator('.readout').textContent()).toBe('root, pages 66–67: 2 exclusive');
    await page.close();
  });

  test('the raw samples are in the page as a file', async () => {
    const { page, requests } = await open('one');
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('a[download$="samples.csv"]').click(),
    ]);
    expect(download.suggestedFilename()).toBe('cowlab-cow-growth-1-samples.csv');
    expect(requests.filter((address) => !address.startsWith('data:text/csv'))).toEqual([]);
    await page.close();
  });
});
