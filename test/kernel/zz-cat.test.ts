import fc from 'fast-check';
import { test } from 'vitest';
import { describeCheck } from '/work/main/lib/machine/compare.js';
import { compareWithModel } from '/work/main/test/kernel/property.js';
import { programs } from '/work/main/test/kernel/programs.js';
test('x', {timeout: 600000}, async () => {
  const N = Number(process.env.N ?? 300), seed = Number(process.env.SEED ?? 1);
  const kinds = new Map<string, number>(); let bad=0, checks=0,pages=0, shown=0; const ex = new Map<string,string>();
  const t=Date.now();
  for (const steps of fc.sample(programs, {seed, numRuns: N})) {
    const r = await compareWithModel(steps); checks+=r.checks.length; pages+=r.pages;
    if (r.mismatches.length) { bad++;
      const first = r.mismatches[0];
      const k = first.name.replace(/[0-9]+/g,'N').replace(/root(\.N)*/g,'P');
      kinds.set(k,(kinds.get(k)??0)+1);
      const text = r.mismatches.slice(0,6).map(describeCheck).join('\n')+'\n'+r.trace.map((e,i)=>`${i+1} ${JSON.stringify(e.step)} ${e.outcome.observation?'':JSON.stringify(e.outcome)}`).join('\n');
      if (!ex.has(k) || ex.get(k)!.length>text.length) ex.set(k,text);
    }
  }
  console.log(`${N} programs ${checks} checks ${pages} pages, ${bad} bad, ${Date.now()-t} ms`);
  for (const [k,n] of [...kinds].sort((a,b)=>b[1]-a[1])) console.log(n,k);
  const show = process.env.SHOW; let i=0; for (const [k,t] of ex) if (!show || k.includes(show)) if (i++<Number(process.env.MAX??3)) console.log('-----',k,'\n'+t);
});
